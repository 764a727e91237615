"""Published networks of any architecture: names and shapes of their weights, written down independently."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch


def published_shapes(
    image_size: int,
    widths: Sequence[int],
    layers: int = 1,
    attention: Sequence[int] = (),
    time_channels: int | None = None,
    classes: int = 0,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published network, in the order of its modules."""
    base, emb = widths[0], 4 * (time_channels or widths[0])
    names: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int) -> None:
        names[f"{name}.weight"], names[f"{name}.bias"] = shape, shape[:1]

    def resnet(name: str, before: int, after: int) -> None:
        layer(f"{name}.in_layers.0", before)
        layer(f"{name}.in_layers.2", after, before, 3, 3)
        layer(f"{name}.emb_layers.1", 2 * after, emb)
        layer(f"{name}.out_layers.0", after)
        layer(f"{name}.out_layers.3", after, after, 3, 3)
        if before != after:
            layer(f"{name}.skip_connection", after, before, 1, 1)

    def attend(name: str, width: int) -> None:
        layer(f"{name}.norm", width)
        layer(f"{name}.qkv", 3 * width, width, 1)
        layer(f"{name}.proj_out", width, width, 1)

    layer("time_embed.0", emb, emb // 4)
    layer("time_embed.2", emb, emb)
    if classes:
        names["label_emb.weight"] = (classes, emb)
    layer("input_blocks.0.0", base, 3, 3, 3)
    number, width, skips = 0, base, [base]
    for stage, after in enumerate(widths):
        for _ in range(layers):
            number += 1
            resnet(f"input_blocks.{number}.0", width, after)
            width = after
            skips.append(width)
            if image_size >> stage in attention:
                attend(f"input_blocks.{number}.1", width)
        if stage < len(widths) - 1:
            number += 1
            layer(f"input_blocks.{number}.0.op", width, width, 3, 3)
            skips.append(width)
    resnet("middle_block.0", width, width)
    attend("middle_block.1", width)
    resnet("middle_block.2", width, width)
    number = -1
    for stage, after in reversed(list(enumerate(widths))):
        for _ in range(layers + 1):
            number += 1
            resnet(f"output_blocks.{number}.0", width + skips.pop(), after)
            width = after
            if image_size >> stage in attention:
                attend(f"output_blocks.{number}.1", width)
        if stage:
            layer(f"output_blocks.{number}.{2 if image_size >> stage in attention else 1}.conv", width, width, 3, 3)
    layer("out.0", base)
    layer("out.2", 3, base, 3, 3)
    for stage, (before, _) in enumerate(pairwise(widths), start=1):
        if before != base:
            layer(f"adapters_in.{image_size >> stage}", before, base, 1, 1)
    for stage in reversed(range(1, len(widths))):
        if widths[stage] != base:
            layer(f"adapters_out.{image_size >> stage}", base, widths[stage], 1, 1)
    return names


def without_memory(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
