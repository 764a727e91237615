"""The cost of a route, counted by PyTorch without computing anything."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from .modeling_flexi_unet import FlexiUNet2DModel
from .routing import Size


def count_gflops(unet: FlexiUNet2DModel, input_size: Size, output_size: Size) -> float:
    """GFLOPs of one image through the route (a multiply-add counts as two), on the meta device.

    Parameters
    ----------
    unet : FlexiUNet2DModel
        Only its configuration is used.
    input_size, output_size : (height, width)
        Sizes of stages.
    """
    # Not from_config: it forgets the arguments that were passed by position.
    settings = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    with torch.device("meta"), torch.no_grad():
        twin = FlexiUNet2DModel(**settings)
        sample = torch.empty(1, twin.config.in_channels, *input_size)
        labels = torch.zeros(1, dtype=torch.int64) if twin.config.num_class_embeds else None
        with FlopCounterMode(display=False) as counter:
            twin(sample, torch.zeros(1), labels, output_size=output_size)
    return counter.get_total_flops() / 1e9
