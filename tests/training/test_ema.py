"""Moving averages of the weights."""

import pytest
import torch
from diffusers.training_utils import EMAModel

from flexi_unet import FlexiUNet2DModel
from ssd.training.ema import EmaNetworks


def moved(unet: FlexiUNet2DModel, by: float) -> None:
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(by)


def test_averages_follow_the_weights_with_warm_up() -> None:
    unet = FlexiUNet2DModel(8, block_out_channels=(32, 32), layers_per_block=1)
    ema = EmaNetworks(unet, [0.5, 0.9999], torch.device("cpu"))
    start = unet.conv_in.weight.detach().clone()
    moved(unet, 1)
    ema.update(unet.parameters())
    torch.testing.assert_close(ema.networks[1].conv_in.weight, unet.conv_in.weight.detach())  # the first update copies
    for _ in range(10):
        moved(unet, 1)
        ema.update(unet.parameters())
    distances = [float((unet.conv_in.weight - net.conv_in.weight).mean().detach()) for net in ema.networks]
    assert 0 < distances[0] < distances[1] < float((unet.conv_in.weight - start).mean().detach())
    assert ema.updates == 11
    assert not any(p.requires_grad for net in ema.networks for p in net.parameters())


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.9999])
def test_averages_are_those_of_diffusers(decay: float) -> None:
    unet = FlexiUNet2DModel(8, block_out_channels=(32, 32), layers_per_block=1)
    ema = EmaNetworks(unet, [decay], torch.device("cpu"))
    theirs = EMAModel(unet.parameters(), decay, use_ema_warmup=True, power=3 / 4)
    for _ in range(20):
        moved(unet, 0.1)
        ema.update(unet.parameters())
        theirs.step(unet.parameters())
    for ours, shadow in zip(ema.networks[0].parameters(), theirs.shadow_params):
        torch.testing.assert_close(ours, shadow, rtol=1e-5, atol=1e-6)
