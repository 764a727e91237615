"""Images folded into patches: what a patch can see, and what it costs."""

import pytest
import torch

from flexi_unet import FlexiUNet2DModel
from flexi_unet.flops import count_gflops
from flexi_unet.patches import folding_conv, unfolding_conv


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_folding_keeps_every_number_of_the_thin_convolution(patch_size: int) -> None:
    torch.manual_seed(0)
    fold, x = folding_conv(3, 32, patch_size), torch.randn(2, 3, 16, 8)
    folded = fold(x)
    assert folded.shape == (2, 32, 16 // patch_size, 8 // patch_size)
    thin = fold if patch_size == 1 else fold[0]
    # Channel c p^2 + i p + j of a place is channel c of its patch's pixel (i, j).
    expected = thin(x).unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    expected = expected.permute(0, 1, 4, 5, 2, 3).flatten(1, 3)
    torch.testing.assert_close(folded, expected, rtol=0, atol=0)


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_an_untrained_network_predicts_zero(patch_size: int) -> None:
    unet = FlexiUNet2DModel(16, block_out_channels=(32, 32), patch_size=patch_size)
    assert unet(torch.randn(2, 3, 16, 16), 7).sample.abs().max() == 0


def test_pixels_see_across_the_edges_of_patches() -> None:
    torch.manual_seed(0)
    unfold = unfolding_conv(32, 1, 2)
    torch.nn.init.normal_(unfold[-1].weight)
    folded = torch.randn(1, 32, 6, 6, requires_grad=True)
    unfold(folded)[0, 0, 5, 5].backward()  # the last pixel of place (2, 2)
    seen = folded.grad.abs().sum((0, 1)) > 0
    assert seen[:5, :5].all()  # two pixels further, which are in places 1 to 3, and one place more
    assert seen.sum() == 25


def test_patches_divide_the_cost_of_the_stages() -> None:
    plain, folded = (FlexiUNet2DModel(64, block_out_channels=(64, 64, 64), patch_size=p, attention_resolutions=())
                     for p in (1, 2))  # fmt: skip
    sizes = ((64, 64), (64, 64))
    # The stages cost a quarter; what is thin adds 3x3 convolutions of 16 channels at full size.
    thin = 2 * 9 * 64 * 64 * (16 * 16 + 2 * 16 * 3) / 1e9
    first, ends = 2 * 9 * 32 * 32 * 64 * 64 / 1e9, 2 * 9 * 64 * 64 * (64 * 3 * 2) / 1e9
    stages = count_gflops(plain, *sizes) - ends
    assert count_gflops(folded, *sizes) == pytest.approx(stages / 4 + thin + first, rel=0.02)


def test_patches_survive_saving(tmp_path) -> None:
    torch.manual_seed(0)
    unet = FlexiUNet2DModel(16, block_out_channels=(32, 32), patch_size=2)
    torch.nn.init.normal_(unet.conv_out[-1].weight)
    unet.save_pretrained(tmp_path)
    loaded, x = FlexiUNet2DModel.from_pretrained(tmp_path), torch.randn(1, 3, 16, 16)
    assert loaded.config.patch_size == 2
    torch.testing.assert_close(loaded(x, 5).sample, unet.eval()(x, 5).sample)
