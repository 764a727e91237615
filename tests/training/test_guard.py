"""Steps that are not finite are skipped, and nothing in a step waits for the device."""

import copy

import torch

from flexi_unet import FlexiUNet2DModel
from ssd import SSDScheduler
from ssd.process.losses import denoising_loss, training_pair
from ssd.training.ema import EmaNetworks
from ssd.training.guard import StepGuard


def small_unet() -> FlexiUNet2DModel:
    torch.manual_seed(0)
    return FlexiUNet2DModel(8, block_out_channels=(32, 32), layers_per_block=1)


def step(unet, optimizer, guard, ema, loss_scale: float = 1.0) -> None:
    loss = unet(torch.ones(1, 3, 8, 8), 5).sample.sub(1).square().mean() * loss_scale
    loss.backward()
    good = guard.judge(torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0))
    optimizer.step()
    ema.update(unet.parameters(), good)
    optimizer.zero_grad(set_to_none=True)


def test_a_bad_step_changes_neither_weights_nor_moments_nor_averages() -> None:
    unet = small_unet()
    optimizer = torch.optim.AdamW(unet.parameters(), 0.01, fused=True)
    guard, ema = StepGuard(optimizer, False, torch.device("cpu")), EmaNetworks(unet, [0.9], torch.device("cpu"))
    for _ in range(3):
        step(unet, optimizer, guard, ema)
    before = copy.deepcopy([*unet.state_dict().values(), *ema.networks[0].state_dict().values()])
    moments = copy.deepcopy(optimizer.state_dict()["state"])
    for scale in (float("nan"), float("inf")):
        step(unet, optimizer, guard, ema, scale)
    assert guard.counts.tolist() == [2, 2]
    assert ema.updates == 3
    after = [*unet.state_dict().values(), *ema.networks[0].state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(before, after))
    for number, kept in optimizer.state_dict()["state"].items():
        assert all(torch.equal(kept[name], moments[number][name]) for name in kept)
    step(unet, optimizer, guard, ema)
    assert guard.counts.tolist() == [2, 0]
    assert ema.updates == 4
    assert not torch.equal(unet.conv_out.weight, before[list(unet.state_dict()).index("conv_out.weight")])


def test_the_gradient_scaler_of_fp16_decides_by_itself() -> None:
    unet = small_unet()
    optimizer = torch.optim.AdamW(unet.parameters(), 0.01, fused=True)
    guard = StepGuard(optimizer, True, torch.device("cpu"))
    assert guard.judge(torch.tensor(float("nan"))) == 0
    assert guard.counts.tolist() == [1, 1]
    assert not hasattr(optimizer, "found_inf")


def test_a_step_never_waits_for_the_device() -> None:
    """On the meta device, which refuses to hand any number back to the program."""
    process = SSDScheduler(sample_size=8, num_levels=2).process
    unet = FlexiUNet2DModel(8, block_out_channels=(32, 32), layers_per_block=1).to("meta")
    optimizer = torch.optim.AdamW(unet.parameters(), 0.01)
    guard, ema = StepGuard(optimizer, False, torch.device("meta")), EmaNetworks(unet, [0.9], torch.device("meta"))
    for t in (torch.tensor([3, 5]), torch.tensor([750, 750])):
        noise = torch.zeros(2, 3, *process.size(t), device="meta")
        x_t, target = training_pair(process, torch.zeros(2, 3, 8, 8, device="meta"), t, noise)
        prediction = unet(x_t, t.to("meta"), output_size=tuple(target.shape[-2:])).sample
        denoising_loss(process, prediction, target, t).mean().backward()
        good = guard.judge(torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0))
        ema.update(unet.parameters(), good)
