"""The architecture of a published network, inferred from the names and shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from flexi_unet.class_names import NO_SUCH_LABEL

from .published_names import expected_adapters, module_of

NUM_GROUPS = 32
"""Groups of every group norm; fixed in guided-diffusion."""

Weights = Mapping[str, torch.Tensor]


def infer_config(weights: Weights, num_attention_heads: int = 4, image_size: int | None = None) -> dict[str, Any]:
    """Settings of the `FlexiUNet2DModel` that published weights belong to.

    Parameters
    ----------
    weights : mapping of str to torch.Tensor
        State dict under the published names; only names and shapes are read.
    num_attention_heads : int
        Shapes do not tell it; the paper's networks have 4.
    image_size : int, optional
        Full resolution in pixels; needed when there are no adapters, whose names tell it.

    Raises
    ------
    ValueError
        When the weights are not those of a Flexi-UNet, or do not tell its architecture.
    """
    modules = {module_of(name) for name in weights}
    adapters = _find_adapters(weights)
    _check_kind(weights, modules, bool(adapters))
    stages = _encoder_stages(modules)
    widths = tuple(_stage_width(weights, blocks) for blocks in stages)
    layers = tuple(len(blocks) for blocks in stages)
    size = _infer_image_size(widths, adapters, image_size)
    with_attention = [any(f"input_blocks.{block}.1.qkv" in modules for block in blocks) for blocks in stages]
    return {
        "sample_size": size,
        "in_channels": _size(weights, "input_blocks.0.0.weight", 1),
        "out_channels": _size(weights, "out.2.weight", 0),
        "block_out_channels": widths,
        "layers_per_block": layers[0] if len(set(layers)) == 1 else layers,
        "attention_resolutions": tuple(size >> stage for stage, attention in enumerate(with_attention) if attention),
        "num_attention_heads": num_attention_heads,
        "norm_num_groups": NUM_GROUPS,
        "num_class_embeds": _size(weights, "label_emb.weight", 0) if "label_emb" in modules else None,
        "no_class_label": NO_SUCH_LABEL if "label_emb" in modules else None,  # guided-diffusion always has a class
        "decoder_exit": "early",
        "time_embed_channels": _size(weights, "time_embed.0.weight", 1),
    }


def misfit(missing: Sequence[str], unknown: Sequence[str], misshapen: Sequence[str]) -> str:
    """One line on what does not fit, with up to three examples of each kind."""
    parts = []
    for what, items in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen)):
        if items:
            more = f" and {len(items) - 3} more" if len(items) > 3 else ""
            count = "1 tensor is" if len(items) == 1 else f"{len(items)} tensors are"
            parts.append(f"{count} {what} ({', '.join(items[:3])}{more})")
    return f"The weights do not fit the Flexi-UNet that their shapes describe: {'; '.join(parts)}."


def _check_kind(weights: Weights, modules: set[str], has_adapters: bool) -> None:
    """Raise a ValueError for weights of another kind of network."""
    if not {"input_blocks.0.0", "time_embed.0", "out.2"} <= modules:
        examples = ", ".join(sorted(weights)[:3]) or "nothing"
        raise ValueError(
            "These are not the weights of a guided-diffusion network: expected names such as input_blocks.0.0.weight, "
            f"found {examples}."
        )
    widths = {
        tensor.numel()
        for name, tensor in weights.items()
        if re.fullmatch(r"input_blocks\.\d+\.0\.out_layers\.3\.bias", name)
    }
    if not has_adapters and len(widths) > 1:
        raise ValueError(
            "This is a plain guided-diffusion U-Net: it has no adapters (adapters_in.*, adapters_out.*), so it is not "
            "a Flexi-UNet and cannot be converted, not even with one level."
        )
    if any(re.match(r"output_blocks\.\d+\.[12]\.in_layers\.", name) for name in weights):
        raise ValueError("This network resizes inside residual blocks (resblock_updown), which Flexi-UNet does not.")


def _size(weights: Weights, name: str, dimension: int) -> int:
    """Length of one dimension of a tensor that every published network has."""
    if name not in weights:
        raise ValueError(misfit([name], [], []))
    shape = weights[name].shape
    if len(shape) <= dimension:
        raise ValueError(misfit([], [], [f"{name} has {len(shape)} dimensions"]))
    return shape[dimension]


def _encoder_stages(modules: set[str]) -> list[list[int]]:
    """Numbers of the residual blocks among the `input_blocks`, stage by stage, fine to coarse."""
    matches = (re.match(r"input_blocks\.(\d{1,4})\.", name) for name in modules)
    last = max(int(match[1]) for match in matches if match)
    stages: list[list[int]] = [[]]
    for number in range(1, last + 1):  # without gaps, so that a missing block is found to be missing
        if f"input_blocks.{number}.0.op" in modules:
            stages.append([])
        else:
            stages[-1].append(number)
    if not all(stages):
        empty = stages.index([])
        raise ValueError(f"Its encoder stage {empty} of {len(stages)} has no residual blocks (input_blocks.*).")
    return stages


def _stage_width(weights: Weights, blocks: Sequence[int]) -> int:
    """Output channels of an encoder stage's residual blocks, from the first tensor that is there."""
    names = [f"input_blocks.{block}.0.out_layers.3.{kind}" for block in blocks for kind in ("weight", "bias")]
    return _size(weights, next((name for name in names if name in weights), names[0]), 0)


def _find_adapters(weights: Weights) -> dict[tuple[str, int], int]:
    """{("in" or "out", resolution): width}, the width being that of the stage and not the base's."""
    found = {}
    for name in weights:
        match = re.fullmatch(r"adapters_(in|out)\.(\d{1,6})\.weight", name)
        if match:
            found[match[1], int(match[2])] = _size(weights, name, 0 if match[1] == "in" else 1)
    return found


def _infer_image_size(widths: Sequence[int], adapters: Mapping[tuple[str, int], int], given: int | None) -> int:
    """The full resolution at which all adapters belong to stages of their width."""
    if not adapters:
        if given is None:
            raise ValueError(
                "All stages have one width, so there are no adapters whose names would tell the resolution: give it "
                "(--res)."
            )
        return given
    candidates = {resolution << stage for _, resolution in adapters for stage in range(1, len(widths))}
    fits = {size: expected_adapters(widths, size) for size in candidates}
    fits = {size: expected for size, expected in fits.items() if adapters.items() <= expected.items()}
    if not fits:
        names = ", ".join(f"adapters_{side}.{resolution}" for side, resolution in adapters)
        raise ValueError(
            f"No resolution makes its adapters ({names}) fit a network of the widths {', '.join(map(str, widths))}."
        )
    sizes = " or ".join(map(str, sorted(fits)))
    if given is not None and given not in fits:
        raise ValueError(f"The adapters' names belong to a resolution of {sizes}, not of {given} (--res).")
    if given is None and len(fits) > 1:  # never when all adapters are there
        raise ValueError(f"Adapters are missing, and the others fit a resolution of {sizes}: give it (--res).")
    return next(iter(fits)) if given is None else given
