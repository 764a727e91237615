"""Converted weights give the published outputs, and weights that do not fit are one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flexi_unet import FlexiUNet2DModel
from ssd.publishing.published_checkpoints import build_unet, convert_weights

from .conftest import GOLDEN, Weights
from .published_networks import published_shapes

ROUTES = [(8, 8), (8, 16), (16, 16), (16, 32), (32, 32)]


@pytest.mark.parametrize(("size", "output_size"), ROUTES)
def test_the_published_outputs_on_every_route(unet: FlexiUNet2DModel, size: int, output_size: int) -> None:
    io = load_file(GOLDEN / "flexi_unet_32_3l.io.safetensors")
    x, t, expected = (io[f"{size}to{output_size}.{name}"] for name in "xty")
    with torch.no_grad():
        result = unet(x.float(), t, output_size=output_size).sample
    assert result.dtype == torch.float32
    assert (result - expected).abs().max() < 2e-5


def test_saving_and_loading_changes_no_output(unet: FlexiUNet2DModel, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path)
    loaded = FlexiUNet2DModel.from_pretrained(tmp_path)
    for name, tensor in unet.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(x, 700, output_size=16).sample, unet(x, 700, output_size=16).sample)


def test_the_result_shares_no_memory_with_the_file(published: Weights) -> None:
    single = {name: tensor.float() for name, tensor in published.items()}
    _, state_dict = convert_weights(single)
    pointers = {tensor.untyped_storage().data_ptr() for tensor in single.values()}
    assert not pointers & {tensor.untyped_storage().data_ptr() for tensor in state_dict.values()}


@pytest.mark.parametrize("attention", [(), (64,), (16, 8), (32,)])
def test_other_architectures_convert_whole(attention: tuple[int, ...]) -> None:
    """A narrow finest stage, classes, one residual block, attention at odd places: every weight finds its place."""
    shapes = published_shapes(64, (32, 64, 64, 96), 1, attention, time_channels=64, classes=10)
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    shared = {"adapters_in.8": "adapters_in.16", "adapters_out.16": "adapters_out.32"}  # both 64 channels wide
    for kind in ("weight", "bias"):
        weights |= {f"{copy}.{kind}": weights[f"{name}.{kind}"] for copy, name in shared.items()}
    unet = build_unet(*convert_weights(weights, num_attention_heads=2))
    assert unet.stage_sizes[0] == (64, 64)
    assert unet.config.attention_resolutions == attention
    dropped = ("output_blocks.7.", *(f"{copy}." for copy in shared))
    kept = sum(tensor.numel() for name, tensor in weights.items() if not name.startswith(dropped))
    assert unet.num_parameters() == kept
    with torch.no_grad():
        out = unet(torch.zeros(1, 3, 8, 8), 10, class_labels=torch.tensor([3]), output_size=16).sample
    assert out.shape == (1, 3, 16, 16)


def averaged_weights(published: Weights) -> Weights:
    """As guided-diffusion saves an average: only the first name of the shared adapter receives it."""
    return published | {"adapters_out.8.bias": published["adapters_out.8.bias"] + 1}


def test_copies_of_a_shared_adapter_that_differ_are_refused(published: Weights, fails: Callable[..., str]) -> None:
    message = fails(averaged_weights(published))
    for text in ("adapters_out.8.bias", "adapters_out.16.bias", "--adapter_copies averaged"):
        assert text in message


@pytest.mark.parametrize(
    ("choice", "name"), [("averaged", "adapters_out.8.bias"), ("published", "adapters_out.16.bias")]
)
def test_the_choice_of_a_copy(published: Weights, choice: str, name: str) -> None:
    weights = averaged_weights(published)
    _, state_dict = convert_weights(weights, adapter_copies=choice)  # type: ignore[arg-type]
    assert torch.equal(state_dict["exit_adapters.64.bias"], weights[name].float())


def test_order_in_which_a_shared_module_is_saved_and_loaded(published: Weights) -> None:
    """What the two choices rest on: torch names a shared parameter by its first name, and loads its last one."""
    shared = torch.nn.Linear(1, 1)
    adapters = torch.nn.ModuleDict({"8": shared, "16": shared})  # the decoder's order: coarse to fine
    assert [name for name, _ in adapters.named_parameters()] == ["8.weight", "8.bias"]
    adapters.load_state_dict(
        {name: torch.full_like(p, int(name.split(".")[0])) for name, p in adapters.state_dict().items()}
    )
    assert shared.bias.item() == 16


@pytest.mark.parametrize(
    "names",
    [
        ["time_embed.2.bias"],
        ["adapters_out.8.weight"],
        ["adapters_in.8.weight", "adapters_in.8.bias"],
        ["input_blocks.3.0.op.weight", "middle_block.1.qkv.bias", "out.2.bias"],
        ["time_embed.0.weight"],
    ],
)
def test_missing_tensors(published: Weights, fails: Callable[..., str], names: list[str]) -> None:
    message = fails({name: tensor for name, tensor in published.items() if name not in names})
    assert f"{len(names)} tensor" in message
    assert "missing" in message
    assert all(name in message for name in names)


def test_a_missing_block_names_three_and_counts(published: Weights, fails: Callable[..., str]) -> None:
    message = fails({name: tensor for name, tensor in published.items() if not name.startswith("input_blocks.5.")})
    assert "16 tensors are missing (input_blocks.5.0" in message
    assert "and 13 more" in message


def test_unknown_tensors(published: Weights, fails: Callable[..., str]) -> None:
    message = fails(published | {f"extra.{i}": torch.zeros(1) for i in range(5)})
    assert "5 tensors are unknown (extra.0, extra.1, extra.2 and 2 more)" in message


def test_tensors_of_another_shape(published: Weights, fails: Callable[..., str]) -> None:
    message = fails(published | {"input_blocks.1.0.emb_layers.1.weight": torch.zeros(32, 128)})
    assert "(32, 128) and not (64, 128)" in message
    assert "of another shape" in fails(published | {"middle_block.1.qkv.weight": torch.zeros(100, 64, 1)})
    assert "dimensions" in fails(published | {"out.2.weight": torch.zeros(())})
