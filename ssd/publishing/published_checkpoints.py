"""Published weights (prateksha/ScaleSpaceDiffusion) as weights of `FlexiUNet2DModel`.

The command is `python -m ssd.publishing.convert`. C channels, K attention heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch

from flexi_unet.modeling_flexi_unet import FlexiUNet2DModel

from .published_architecture import Weights, infer_config, misfit
from .published_names import kind_of, module_of, never_run_prefix, published_names, qkv_index

AdapterCopies = Literal["equal", "averaged", "published"]


def convert_weights(
    weights: Weights,
    num_attention_heads: int = 4,
    image_size: int | None = None,
    adapter_copies: AdapterCopies = "equal",
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and state dict of our network from a published state dict.

    Parameters
    ----------
    weights : mapping of str to torch.Tensor
        State dict under the published names, any floating dtype.
    num_attention_heads, image_size
        See `infer_config`.
    adapter_copies : {"equal", "averaged", "published"}
        A shared adapter is stored once per resolution. guided-diffusion, when it saves averaged weights, replaces
        only the copy that was registered first; the others are the raw weights of that step. equal: refuse copies
        that differ. averaged: take the first one. published: take the last one, which is what remains when the
        published code loads the file.

    Returns
    -------
    config : dict
        Arguments of `FlexiUNet2DModel`.
    state_dict : dict of str to torch.Tensor
        Its weights, float32, sharing no memory with `weights`.

    Raises
    ------
    ValueError
        For names that are missing or unknown, shapes that do not fit, or adapters that differ.
    """
    if adapter_copies not in get_args(AdapterCopies):
        raise ValueError(f"adapter_copies must be one of {', '.join(get_args(AdapterCopies))}, got {adapter_copies!r}.")
    if num_attention_heads < 1:
        raise ValueError(f"num_attention_heads must be at least 1, got {num_attention_heads}.")
    config = infer_config(weights, num_attention_heads, image_size)
    with torch.device("meta"):
        ours = FlexiUNet2DModel(**config).state_dict()
    modules = published_names(config)
    sources = {name: tuple(f"{copy}.{kind_of(name)}" for copy in modules[module_of(name)]) for name in ours}
    _check_names_and_shapes(weights, ours, sources, never_run=never_run_prefix(config))
    return config, {
        name: _convert_tensor(name, weights[_choose_copy(weights, copies, adapter_copies)], num_attention_heads)
        for name, copies in sources.items()
    }


def build_unet(config: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]) -> FlexiUNet2DModel:
    """The network of `convert_weights`, in evaluation mode; it takes over the tensors without a copy."""
    with torch.device("meta"):  # no time spent on weights that are replaced at once
        unet = FlexiUNet2DModel(**config)
    unet.load_state_dict(state_dict, assign=True)
    return unet.eval()


def _check_names_and_shapes(
    weights: Weights, ours: Weights, sources: Mapping[str, tuple[str, ...]], never_run: str
) -> None:
    """Raise a ValueError unless `weights` are exactly the `sources` of `ours`; names in `never_run` may be there."""
    shapes = {
        source: _published_shape(name, tuple(tensor.shape)) for name, tensor in ours.items() for source in sources[name]
    }
    missing = [name for name in shapes if name not in weights]
    unknown = [name for name in weights if name not in shapes and not name.startswith(never_run)]
    misshapen = [
        f"{name} is {tuple(weights[name].shape)} and not {shape}"
        for name, shape in shapes.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if missing or unknown or misshapen:
        raise ValueError(misfit(missing, unknown, misshapen))


def _published_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape under which our tensor `name` is published: attention is made of 1-D convolutions, with q, k, v in one."""
    if ".attentions." not in name:
        return shape
    if qkv_index(name) is not None:
        shape = (3 * shape[0], *shape[1:])
    return (*shape, 1) if len(shape) == 2 else shape


def _choose_copy(weights: Weights, copies: tuple[str, ...], adapter_copies: str) -> str:
    """The name of the copy to use."""
    if adapter_copies == "equal":
        for other in copies[1:]:
            if not torch.equal(weights[copies[0]], weights[other]):
                raise ValueError(
                    f"{copies[0]} and {other} are copies of one adapter but differ, as they can in files of "
                    "averaged weights: choose the average (--adapter_copies averaged) or the one that the published "
                    "code uses (--adapter_copies published)."
                )
    return copies[-1] if adapter_copies == "published" else copies[0]


def _convert_tensor(name: str, tensor: torch.Tensor, num_heads: int) -> torch.Tensor:
    """A published tensor as our tensor `name`: float32, a copy."""
    if ".attentions." in name and tensor.ndim == 3:
        tensor = tensor.squeeze(-1)  # (C_out, C_in, 1) -> (C_out, C_in)
    part = qkv_index(name)
    if part is not None:  # rows are ordered by head, then q k v: (K 3 C/K, ..) -> (C, ..)
        tensor = tensor.reshape(num_heads, 3, -1, *tensor.shape[1:])[:, part].flatten(0, 1)
    return tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
