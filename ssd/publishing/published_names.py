"""The table of names: which module of the published network is which of ours.

The published network numbers its blocks through all stages (guided-diffusion); ours names stage, layer and part, as
diffusers does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RESNET_LAYERS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
QKV = ("to_q", "to_k", "to_v")
ATTENTION_LAYERS = {"group_norm": "norm", **dict.fromkeys(QKV, "qkv"), "to_out.0": "proj_out"}
TOP_LAYERS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding": "label_emb",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def published_names(config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Our modules -> the published ones; a shared adapter has several names, in the order of their registration."""
    names = TOP_LAYERS | _encoder_names(config) | _middle_names() | _decoder_names(config)
    copies: dict[str, tuple[str, ...]] = {ours: (published,) for ours, published in names.items()}
    adapters = expected_adapters(config["block_out_channels"], config["sample_size"])
    for (side, resolution), width in adapters.items():
        ours = f"{'entry' if side == 'in' else 'exit'}_adapters.{width}"
        copies[ours] = (*copies.get(ours, ()), f"adapters_{side}.{resolution}")
    return copies


def never_run_prefix(config: Mapping[str, Any]) -> str:
    """Prefix of the finest decoder stage's last block: the published code makes it, but no route leads through it."""
    return f"output_blocks.{sum(layers + 1 for layers in layers_per_stage(config)) - 1}."


def expected_adapters(widths: Sequence[int], image_size: int) -> dict[tuple[str, int], int]:
    """The adapters of a network, {("in" or "out", resolution): width}, in the order in which they were registered.

    The published code goes through the encoder for the entries (fine to coarse) and through the decoder for the
    exits (coarse to fine); an entry has the width that its stage expects, which is that of the stage before.
    """
    base, stages = widths[0], range(1, len(widths))
    entries = {("in", image_size >> stage): widths[stage - 1] for stage in stages}
    exits = {("out", image_size >> stage): widths[stage] for stage in reversed(stages)}
    return {adapter: width for adapter, width in (entries | exits).items() if width != base}


def _encoder_names(config: Mapping[str, Any]) -> dict[str, str]:
    """All encoder stages: residual blocks, then the downsampler unless the stage is the coarsest."""
    names: dict[str, str] = {}
    number, layers = 1, layers_per_stage(config)
    for stage, num_layers in enumerate(layers):
        for layer in range(num_layers):
            names |= _block_names(f"down_blocks.{stage}", layer, f"input_blocks.{number}")
            number += 1
        if stage < len(layers) - 1:
            names[f"down_blocks.{stage}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    return names


def _middle_names() -> dict[str, str]:
    names: dict[str, str] = {}
    for layer, block in enumerate(("middle_block.0", "middle_block.2")):
        names |= {f"mid_block.resnets.{layer}.{ours}": f"{block}.{name}" for ours, name in RESNET_LAYERS.items()}
    return names | {
        f"mid_block.attentions.0.{ours}": f"middle_block.1.{name}" for ours, name in ATTENTION_LAYERS.items()
    }


def _decoder_names(config: Mapping[str, Any]) -> dict[str, str]:
    """All decoder stages, coarse to fine; the upsampler is a part of the last block of its stage."""
    names: dict[str, str] = {}
    number, layers = 0, layers_per_stage(config)
    for index, stage in enumerate(reversed(range(len(layers)))):
        for layer in range(layers[stage] + 1):
            names |= _block_names(f"up_blocks.{index}", layer, f"output_blocks.{number}")
            number += 1
        # It sits behind the block's attention, where there is one.
        place = 2 if config["sample_size"] >> stage in config["attention_resolutions"] else 1
        names[f"up_blocks.{index}.upsamplers.0.conv"] = f"output_blocks.{number - 1}.{place}.conv"
    return names


def _block_names(stage: str, layer: int, block: str) -> dict[str, str]:
    """Our module name -> the published one, of a residual block and the attention behind it."""
    names = {f"{stage}.resnets.{layer}.{ours}": f"{block}.0.{name}" for ours, name in RESNET_LAYERS.items()}
    return names | {
        f"{stage}.attentions.{layer}.{ours}": f"{block}.1.{name}" for ours, name in ATTENTION_LAYERS.items()
    }


def layers_per_stage(config: Mapping[str, Any]) -> list[int]:
    """Residual blocks of every encoder stage, fine to coarse."""
    layers = config["layers_per_block"]
    return [layers] * len(config["block_out_channels"]) if isinstance(layers, int) else list(layers)


def module_of(name: str) -> str:
    """Module of a tensor's name: 'conv_in.weight' -> 'conv_in'."""
    return name.rpartition(".")[0]


def kind_of(name: str) -> str:
    """'weight' or 'bias'."""
    return name.rpartition(".")[2]


def qkv_index(name: str) -> int | None:
    """0, 1, 2 for the tensors of an attention's to_q, to_k, to_v."""
    layer = kind_of(module_of(name))
    return QKV.index(layer) if layer in QKV else None
