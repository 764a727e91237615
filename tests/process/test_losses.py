"""Training target and loss weight."""

import pytest
import torch

from ssd import SSDScheduler
from ssd.process.losses import END, denoising_loss, normalised_residual, training_pair
from ssd.process.noise import NoiseSchedule, make_betas
from ssd.process.preconditioning import DataMoments
from ssd.process.predictions import PREDICTION_TYPES


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


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("t", [[3, 400], [555, 555], [900, 950]])
def test_beyond_the_range_a_clipped_prediction_is_right(kind: str, t: list[int]) -> None:
    """Black and white pixels: too dark a black, too bright a white cost nothing; all others are as without clipping."""
    moments = {"mean": [0.0] * 3, "variances": [0.5, 0.4, 0.3]}
    process, times = SSDScheduler(sample_size=16, num_levels=3, data_moments=moments).process, torch.tensor(t)
    size = process.size(times - 1)
    x_0 = (torch.arange(16) // 8 * 2.0 - 1).expand(2, 3, 16, 16)  # half black, half white
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, *process.size(times), generator=generator)
    _, target = training_pair(process, x_0, times, noise, kind)
    clean = process.target(x_0, times)
    assert (clean.abs() >= END).any()
    scale = process.output_scale(kind, times, times - 1).float()
    wrong = torch.randn(2, 3, *size, generator=generator)
    output = (target + wrong / scale).requires_grad_()
    found = denoising_loss(process, output, target, times, kind, clipped=clean)
    found.sum().backward()
    assert output.grad is not None
    beyond = (clean.abs() >= END) & (clean * wrong > 0)
    assert torch.equal(output.grad == 0, beyond)
    usual = torch.autograd.grad(denoising_loss(process, output, target, times, kind).sum(), output)[0]
    assert torch.equal(output.grad[~beyond], usual[~beyond])


def test_grey_pixels_have_no_end_of_the_range() -> None:
    process, t = SSDScheduler(sample_size=8, num_levels=1).process, torch.tensor([100])
    grey = torch.full((1, 3, 8, 8), 1 - 2 / 255)  # the second brightest of 8 bits
    found = denoising_loss(process, grey + 1, grey, t, clipped=grey)
    assert torch.equal(found, denoising_loss(process, grey + 1, grey, t))


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("t", [[0, 100, 400], [555, 555, 555], [900, 950, 999]])
def test_the_residual_of_a_linear_estimate_is_one(kind: str, t: list[int]) -> None:
    """White images about their mean: in the mean the estimate's error is what the theory says."""
    process = SSDScheduler(
        sample_size=16, num_levels=3, data_moments={"mean": [0.1] * 3, "variances": [0.04, 0.01, 0.002]}
    ).process
    times, generator = torch.tensor(t).repeat(100), torch.Generator().manual_seed(0)
    x_0 = 0.1 + 0.2 * torch.randn(300, 3, 16, 16, generator=generator)
    noise = torch.randn(300, 3, *process.size(times), generator=generator)
    clean = process.target(x_0, times)
    variance = (clean - clean.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
    process.moments = DataMoments((0.1,) * 3, (float(variance),) * 3)
    x_t = process.marginal_sample(x_0, times, noise)
    estimate = process.clean_image("preconditioned", torch.zeros_like(clean), x_t, times, times - 1)
    output = process.conversion(kind, x_t, times, times - 1).from_sample(estimate)
    _, target = training_pair(process, x_0, times, noise, kind)
    found = normalised_residual(process, output, target, clean, times, kind)
    assert found.shape == (300,)
    # The estimate's errors are about Gaussian: of n squares the mean has the spread sqrt(2 / n).
    assert float(found.mean()) == pytest.approx(1, abs=5 * (2 / clean.numel()) ** 0.5 + 0.02 * (kind != "sample"))
