"""The cost of a pair of sizes in arithmetic and memory, counted by PyTorch without computing anything."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from . import Network
from .routing import Size


def count_gflops(unet: Network, input_size: Size, output_size: Size) -> float:
    """GFLOPs of one image through the network (a multiply-add counts as two), on the meta device.

    Resizing is not counted: it is a few operations per pixel.

    Parameters
    ----------
    unet : FlexiUNet2DModel or ResizedUNet2DModel
        Only its class and configuration are used.
    input_size, output_size : (height, width)
        Sizes of x_t and of the prediction.

    Raises
    ------
    ValueError
        For sizes that the network cannot take.

    Examples
    --------
    >>> from flexi_unet import FlexiUNet2DModel
    >>> unet = FlexiUNet2DModel(16, block_out_channels=(32, 32))
    >>> count_gflops(unet, (8, 8), (8, 8)) == count_gflops(unet, (7, 7), (8, 8)) < count_gflops(unet, (8, 8), (16, 16))
    True
    """
    # Pairs of sizes that are resized to the same stages cost the same.
    return _count(*_kind(unet), *unet.working_sizes(input_size, output_size))


def count_kept_bytes(unet: Network, input_size: Size, output_size: Size, gradient_checkpointing: bool = False) -> int:
    """Bytes that autograd keeps of one image from the way forward for the way back, on the meta device, in float32.

    They are the tensors that operations save, each once, without the weights. What operations need for a moment is not
    counted.

    Parameters
    ----------
    unet, input_size, output_size
        As in `count_gflops`.
    gradient_checkpointing : bool
        Activations inside blocks are not kept, but computed again.

    Examples
    --------
    >>> from flexi_unet import FlexiUNet2DModel
    >>> unet = FlexiUNet2DModel(16, block_out_channels=(32, 32))
    >>> kept = count_kept_bytes(unet, (16, 16), (16, 16))
    >>> count_kept_bytes(unet, (16, 16), (16, 16), gradient_checkpointing=True) < kept
    True
    """
    twin = _twin_in_training(*_kind(unet), gradient_checkpointing)
    weights = {weight.untyped_storage()._cdata for weight in twin.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # the storages stay here, so that none has the address of another

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        twin(*_inputs(twin, input_size), output_size=output_size)
    return sum(storage.nbytes() for address, storage in kept.items() if address not in weights)


def _kind(unet: Network) -> tuple[Any, str]:
    """The class of a network, and its settings as text."""
    settings = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    return type(unet), json.dumps(settings, sort_keys=True)


def _inputs(twin: Any, size: Size) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """An image, a timestep and a label on the meta device."""
    with torch.device("meta"):
        labels = torch.zeros(1, dtype=torch.int64) if twin.config.num_class_embeds else None
        return torch.empty(1, twin.config.in_channels, *size), torch.zeros(1), labels


@lru_cache(maxsize=1024)
def _count(network: Any, settings: str, input_size: Size, output_size: Size) -> float:
    twin = _twin(network, settings)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(*_inputs(twin, input_size), output_size=output_size)
    return counter.get_total_flops() / 1e9


@lru_cache(maxsize=2)
def _twin(network: Any, settings: str) -> Any:
    """The network without memory for its weights; not by from_config, which forgets arguments passed by position."""
    with torch.device("meta"):
        return network(**json.loads(settings)).eval()


@lru_cache(maxsize=2)
def _twin_in_training(network: Any, settings: str, gradient_checkpointing: bool) -> Any:
    """The same as it trains."""
    twin = copy.deepcopy(_twin(network, settings)).train()
    if gradient_checkpointing:
        twin.enable_gradient_checkpointing()
    return twin
