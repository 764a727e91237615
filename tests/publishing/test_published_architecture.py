"""The architecture is inferred from names and shapes, and networks of another kind are refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
import torch

from flexi_unet import FlexiUNet2DModel
from ssd.publishing.published_architecture import infer_config

from .conftest import GOLDEN, Weights
from .published_networks import published_shapes, without_memory


def test_the_architecture_is_the_published_one(unet: FlexiUNet2DModel) -> None:
    described = json.loads((GOLDEN / "flexi_unet_32_3l.json").read_text())
    base = described["model_channels"]
    config = unet.config
    assert config.sample_size == described["image_size"]
    assert list(config.block_out_channels) == [int(base * multiplier) for multiplier in described["channel_mult"]]
    assert config.layers_per_block == described["num_res_blocks"]
    assert list(config.attention_resolutions) == described["attention_resolutions"]
    assert config.num_attention_heads == described["num_heads"]
    assert config.time_embed_channels == base
    assert config.num_class_embeds is None
    assert config.decoder_exit == "early"


def test_the_generator_of_names_is_right(published: Weights) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in published.items()}
    assert published_shapes(32, (32, 64, 64), layers=2, attention=(16, 8)) == expected


@pytest.mark.parametrize(
    ("image_size", "multipliers"),
    [
        (32, (1, 2, 4)),
        (64, (1, 2, 3, 4)),
        (128, (1, 1, 2, 3, 4)),
        (256, (1, 1, 2, 2, 4, 4)),
        (512, (0.5, 1, 1, 2, 2, 4, 4)),
        (1024, (0.5, 0.5, 1, 1, 2, 2, 4, 4)),
    ],
)
def test_the_papers_architectures_are_recognized(image_size: int, multipliers: Sequence[float]) -> None:
    widths = tuple(int(128 * multiplier) for multiplier in multipliers)
    shapes = published_shapes(image_size, widths, layers=2, attention=(16, 8), time_channels=128, classes=1000)
    config = infer_config(without_memory(shapes))
    assert config["sample_size"] == image_size
    assert config["block_out_channels"] == widths
    assert config["layers_per_block"] == 2
    assert config["attention_resolutions"] == tuple(size for size in (16, 8) if size >= image_size >> len(widths) - 1)
    assert config["time_embed_channels"] == 128
    assert config["num_class_embeds"] == 1000


def test_one_width_needs_the_resolution(fails: Callable[..., str]) -> None:
    weights = without_memory(published_shapes(16, (32, 32)))
    assert infer_config(weights, image_size=16)["sample_size"] == 16
    assert "--res" in fails(weights)


def test_a_resolution_that_contradicts_the_adapters(published: Weights, fails: Callable[..., str]) -> None:
    assert infer_config(published, image_size=32)["sample_size"] == 32
    message = fails(published, "--res", "64")
    assert "32" in message
    assert "64" in message


def test_another_network(fails: Callable[..., str]) -> None:
    message = fails({"conv1.weight": torch.zeros(3)})
    assert "guided-diffusion" in message
    assert "conv1.weight" in message


def test_plain_unet_without_adapters(published: Weights, fails: Callable[..., str]) -> None:
    message = fails({name: tensor for name, tensor in published.items() if not name.startswith("adapters")})
    assert "plain guided-diffusion U-Net" in message
    assert "no adapters" in message


def test_resblock_updown(published: Weights, fails: Callable[..., str]) -> None:
    assert "resblock_updown" in fails(published | {"output_blocks.2.2.in_layers.0.weight": torch.zeros(64)})


def test_adapters_that_are_missing_and_leave_the_resolution_open(published: Weights, fails: Callable[..., str]) -> None:
    gone = ("adapters_in.8.weight", "adapters_out.16.weight")
    weights = {name: tensor for name, tensor in published.items() if name not in gone}
    assert "16 or 32" in fails(weights)
    message = fails(weights, "--res", "32")
    assert all(name in message for name in gone)


def test_adapters_that_fit_no_resolution(published: Weights, fails: Callable[..., str]) -> None:
    renamed = {name.replace("adapters_in.8.", "adapters_in.16."): tensor for name, tensor in published.items()}
    assert "adapters_in.16" in fails(renamed)
