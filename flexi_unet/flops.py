"""The cost of a pair of sizes, counted by PyTorch without computing anything."""

from __future__ import annotations

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
    settings = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    network: Any = type(unet)
    # Pairs of sizes that are resized to the same stages cost the same.
    return _count(network, json.dumps(settings, sort_keys=True), *unet.working_sizes(input_size, output_size))


@lru_cache(maxsize=1024)
def _count(network: Any, settings: str, input_size: Size, output_size: Size) -> float:
    twin = _twin(network, settings)
    with torch.device("meta"), torch.no_grad():
        sample = torch.empty(1, twin.config.in_channels, *input_size)
        labels = torch.zeros(1, dtype=torch.int64) if twin.config.num_class_embeds else None
        with FlopCounterMode(display=False) as counter:
            twin(sample, torch.zeros(1), labels, output_size=output_size)
    return counter.get_total_flops() / 1e9


@lru_cache(maxsize=2)
def _twin(network: Any, settings: str) -> Any:
    """The network without memory for its weights; not by from_config, which forgets arguments passed by position."""
    with torch.device("meta"):
        return network(**json.loads(settings)).eval()
