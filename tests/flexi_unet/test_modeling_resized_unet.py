"""The full U-Net: diffusers' own, between any two sizes."""

import pytest
import torch
from diffusers import UNet2DModel

from flexi_unet import FlexiUNet2DModel, ResizedUNet2DModel
from flexi_unet.flops import count_gflops
from flexi_unet.resizing import resize
from ssd.training.networks import resized_unet_of


def settings(**more) -> dict:
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    sizes = {"sample_size": (16, 8), "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    return blocks | sizes | {"attention_head_dim": 4} | more


def pair(**more) -> tuple[ResizedUNet2DModel, UNet2DModel]:
    torch.manual_seed(0)
    ours, theirs = ResizedUNet2DModel(**settings(**more)).eval(), UNet2DModel(**settings(**more)).eval()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def images(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 2])])
def test_at_its_own_size_it_is_diffusers_network(labels) -> None:
    ours, theirs = pair(num_class_embeds=None if labels is None else 3)
    for inputs in ((images(16, 8), 7), (images(16, 8), torch.tensor([3, 900]))):
        assert torch.equal(ours(*inputs, labels).sample, theirs(*inputs, labels).sample)
        assert torch.equal(ours(*inputs, labels, return_dict=False)[0], theirs(*inputs, labels).sample)


@pytest.mark.parametrize(
    ("size", "output_size"), [((8, 4), None), ((8, 4), (16, 8)), ((5, 3), (7, 4)), ((16, 8), (9, 9))]
)
def test_between_other_sizes_it_resizes_in_and_out(size, output_size) -> None:
    ours, theirs = pair()
    x = images(*size)
    found = ours(x, 7, output_size=output_size).sample
    inner = theirs(resize(x, (16, 8)), 7).sample
    torch.testing.assert_close(found, resize(inner, output_size or size))
    assert found.shape[-2:] == (output_size or size)


def test_constant_images_stay_constant_when_resized() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for size in ((3, 5), (16, 16), (32, 31)):
            found = resize(torch.full((1, 1, 16, 8), 0.5, dtype=dtype), size)
            assert found.dtype == dtype
            torch.testing.assert_close(found, torch.full_like(found, 0.5))


def test_weights_of_diffusers_network_load(tmp_path) -> None:
    ours, theirs = pair()
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = ResizedUNet2DModel.from_pretrained(tmp_path / "theirs")
    assert torch.equal(loaded(images(16, 8), 7).sample, theirs(images(16, 8), 7).sample)
    loaded.save_pretrained(tmp_path / "ours")
    assert '"ResizedUNet2DModel"' in (tmp_path / "ours" / "config.json").read_text()
    again = ResizedUNet2DModel.from_pretrained(tmp_path / "ours")
    assert torch.equal(again(images(5, 4), 7).sample, ours(images(5, 4), 7).sample)


def test_gradients_with_checkpointing_are_the_same() -> None:
    ours, _ = pair()
    gradients = []
    for _ in range(2):
        ours.train().zero_grad()
        ours(images(8, 4), 7, output_size=(16, 8)).sample.square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in ours.parameters()])
        ours.enable_gradient_checkpointing()
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other)


def test_the_full_unet_costs_the_same_at_every_size() -> None:
    """And at full size as much as Flexi-UNet with its last block: the paper's plain U-Net."""
    with torch.device("meta"):
        full, flexi = resized_unet_of(64, (128, 256, 384, 512)), FlexiUNet2DModel(64, decoder_exit="full")
    cost = count_gflops(full, (64, 64), (64, 64))
    assert cost == pytest.approx(60.05, rel=0.01)  # arXiv:2603.08709, table 2
    assert cost == pytest.approx(count_gflops(flexi, (64, 64), (64, 64)), rel=1e-6)
    for sizes in (((8, 8), (8, 8)), ((31, 31), (32, 32))):
        assert count_gflops(full, *sizes) == cost
    assert count_gflops(flexi, (31, 31), (32, 32)) < 0.7 * cost
