"""The full U-Net: a UNet2DModel at its own size, bit for bit, and a network for every other size."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import UNet2DModel
from torch.nn.functional import interpolate

from flexi_unet import ResizedUNet2DModel
from flexi_unet.resizing import resize

from ..numerics import network_rounding, plain_attention, relative_error

SETTINGS = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 16,
    "resnet_time_scale_shift": "scale_shift",
    "attn_norm_num_groups": 32,
    "layers_per_block": 1,
}


def small(kind: type = ResizedUNet2DModel, **changes):
    torch.manual_seed(0)
    return kind(**SETTINGS | changes).eval()


@pytest.mark.parametrize("changes", [{}, {"num_class_embeds": 5}, {"sample_size": (24, 16)}, {"in_channels": 1}])
def test_at_its_own_size_it_is_diffusers_network(changes: dict) -> None:
    plain, ours = small(UNet2DModel, **changes), small(**changes)
    size = ours.stage_sizes[0]
    x, t = torch.randn(2, ours.config.in_channels, *size), torch.tensor([3, 700])
    labels = torch.tensor([0, 4]) if changes.get("num_class_embeds") else None
    expected = plain(x, t, labels).sample
    assert torch.equal(ours(x, t, labels).sample, expected)
    assert torch.equal(ours(x, t, labels, False, output_size=size)[0], expected)


@pytest.mark.parametrize(("size", "output"), [(8, 8), (8, 16), (16, 9), (3, 4), (20, 24), (32, 16)])
def test_other_sizes_are_resized(size: int, output: int) -> None:
    unet, x = small(), torch.randn(2, 3, size, size)
    inside = x if size == 16 else interpolate(x, size=(16, 16), mode="bilinear", antialias=size > 16)
    at_full_size = small(UNet2DModel)(inside, 5).sample
    expected = at_full_size
    if output != 16:
        expected = interpolate(at_full_size, size=(output, output), mode="bilinear", antialias=output < 16)
    assert torch.equal(unet(x, 5, output_size=output).sample, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_constant_images_stay_constant_when_resized(dtype: torch.dtype) -> None:
    for size in ((3, 5), (16, 8), (16, 16), (32, 31)):
        found = resize(torch.full((1, 1, 16, 8), 0.5, dtype=dtype), size)
        assert found.dtype == dtype
        torch.testing.assert_close(found, torch.full((1, 1, *size), 0.5, dtype=dtype))


def test_the_output_has_the_inputs_size_by_default() -> None:
    assert small()(torch.randn(1, 3, 9, 7), 5).sample.shape == (1, 3, 9, 7)
    with pytest.raises(TypeError, match="positional arguments"):
        small()(torch.zeros(1, 3, 8, 8), 5, None, True, 16)


def test_configuration_and_weights_of_a_plain_network(tmp_path) -> None:
    plain, x = small(UNet2DModel), torch.randn(1, 3, 16, 16)
    plain.save_pretrained(tmp_path)
    loaded = ResizedUNet2DModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(x, 5).sample, plain(x, 5).sample)
    again = ResizedUNet2DModel.from_config(plain.config)
    again.load_state_dict(plain.state_dict())
    assert torch.equal(again(x, 5).sample, plain(x, 5).sample)
    other = ResizedUNet2DModel.from_pretrained(tmp_path, sample_size=32)
    assert (other.config.sample_size, other.stage_sizes[0]) == (32, (32, 32))


def test_save_and_load(tmp_path, caplog) -> None:
    unet, x = small(num_class_embeds=3, id2label={0: "cat", 1: "dog"}), torch.randn(2, 3, 8, 8)
    unet.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["_class_name"] == "ResizedUNet2DModel"
    assert not [name for name in saved if name in ("arguments", "settings", "args", "kwargs")]
    again = ResizedUNet2DModel.from_pretrained(tmp_path)
    assert again.class_names == unet.class_names == ["cat", "dog"]
    assert again.config.id2label == {0: "cat", 1: "dog"}
    assert not [record for record in caplog.records if "not expected" in record.getMessage()]
    labels = torch.tensor([0, 2])
    assert torch.equal(again(x, 5, labels, output_size=16).sample, unet(x, 5, labels, output_size=16).sample)
    assert all(parameter.data_ptr() % 64 == 0 for parameter in again.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("size", "output"), [(8, 9), (16, 16), (20, 20)])
def test_half_precision_and_autocast(size: int, output: int, dtype: torch.dtype) -> None:
    unet, x = small(), torch.randn(2, 3, size, size)
    exact = small().double()(x.double(), 5, output_size=output).sample
    with plain_attention():
        with torch.autocast("cpu", dtype):
            mixed = unet(x, 5, output_size=output).sample
        half = unet.to(dtype)(x.to(dtype), 5, output_size=output).sample
    assert half.dtype == dtype
    for found in (mixed, half):
        assert relative_error(found, exact) < network_rounding(unet, dtype)


def test_gradient_checkpointing_changes_nothing() -> None:
    unet, x = small().train(), torch.randn(2, 3, 8, 8)
    gradients = []
    for _ in range(2):
        loss = unet(x, 5, output_size=9).sample.square().sum()
        gradients.append(torch.autograd.grad(loss, list(unet.parameters())))
        unet.enable_gradient_checkpointing()
    assert unet.is_gradient_checkpointing
    for plain, checkpointed in zip(*gradients):
        torch.testing.assert_close(checkpointed, plain)


def test_class_names_are_optional() -> None:
    assert small().class_names is None
    assert small(num_class_embeds=3).class_names is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_size": None}, "works at one size: give sample_size"),
        ({"sample_size": 15}, "divisible by 2: got 15 x 15"),
        ({"id2label": {0: "a"}}, "has none"),
        ({"num_class_embeds": 3, "id2label": {0: "a"}}, r"classes 0\.\.1 of num_class_embeds=3"),
    ],
)
def test_impossible_networks_are_explained(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)
