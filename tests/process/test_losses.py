"""Training target and loss weight."""

import torch

from ssd import SSDScheduler
from ssd.process.losses import denoising_loss, training_pair
from ssd.process.noise import NoiseSchedule, make_betas


def test_training_pair_and_loss() -> None:
    process = SSDScheduler(sample_size=16, num_levels=2).process
    x_0 = torch.rand(2, 3, 16, 16) * 2 - 1
    x_t, target = training_pair(process, x_0, torch.tensor([750, 750]), torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(target, x_0)  # from the level change on the target is the larger image
    torch.testing.assert_close(x_t, process.signal(750).float() * process.degrade(x_0, 750))
    _, target = training_pair(process, x_0, torch.tensor([800, 900]), torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(target, process.degrade(x_0, 999))

    t = torch.tensor([0, 700])
    loss = denoising_loss(process, torch.full((2, 3, 4, 4), 2.0), torch.zeros(2, 3, 4, 4), t)
    snr = NoiseSchedule.from_betas(make_betas()).snr[700]
    torch.testing.assert_close(loss, torch.tensor([5.0 * 4, float(snr) * 4]))
