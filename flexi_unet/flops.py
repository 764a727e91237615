"""The cost of a route, counted by PyTorch without computing anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .modeling_flexi_unet import FlexiUNet2DModel
from .modeling_resized_unet import ResizedUNet2DModel
from .routing import Size


def count_gflops(unet: FlexiUNet2DModel | ResizedUNet2DModel, input_size: Size, output_size: Size) -> float:
    """GFLOPs of one image through the route (a multiply-add counts as two), on the meta device.

    Parameters
    ----------
    unet : FlexiUNet2DModel or ResizedUNet2DModel
        Only its configuration is used.
    input_size, output_size : (height, width)
        The sizes of x_t and of the prediction.
    """
    # Not from_config: it forgets the arguments that were passed by position.
    settings = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    network: Callable[..., nn.Module] = type(unet)
    return _count(network, json.dumps(settings), *_sizes_inside(unet, input_size, output_size))


def _sizes_inside(
    unet: FlexiUNet2DModel | ResizedUNet2DModel, input_size: Size, output_size: Size
) -> tuple[Size, Size]:
    """The sizes at which the network runs: resizing on the way in and out is not counted."""
    if isinstance(unet, ResizedUNet2DModel):
        own = unet.own_size(output_size)
        return own, own
    route = unet.route(input_size, output_size)
    return unet.stage_sizes[route.entry_stage], unet.stage_sizes[route.decoder[-1].stage]


@lru_cache(maxsize=1024)
def _count(network: Callable[..., nn.Module], settings: str, input_size: Size, output_size: Size) -> float:
    twin = _without_memory(network, settings)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        sample = torch.empty(1, twin.config.in_channels, *input_size)
        labels = torch.zeros(1, dtype=torch.int64) if twin.config.num_class_embeds else None
        twin(sample, torch.zeros(1), labels, output_size=output_size)
    return counter.get_total_flops() / 1e9


@lru_cache(maxsize=8)
def _without_memory(network: Callable[..., nn.Module], settings: str) -> Any:
    """The same network on the meta device, built once for all its routes."""
    with torch.device("meta"):
        return network(**json.loads(settings))
