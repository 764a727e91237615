"""GFLOPs and seconds: what the paper's networks cost, counted on the meta device, and measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from flexi_unet import FlexiUNet2DModel

from ..scheduling_ssd import SSDScheduler
from ..training.build import build_scheduler, build_unet
from ..training.config import TrainConfig, parse_train_config
from ..training.summary import mean_gflops, route_costs


@cache
def paper_network(res: int, decoder_exit: str = "early", base: int = 128) -> FlexiUNet2DModel:
    """The paper's Flexi-UNet for `res` pixels, without memory; `base` scales its widths."""
    config = TrainConfig(res=res, data="digits", out="unused", decoder_exit=decoder_exit)  # type: ignore[arg-type]
    with torch.device("meta"):
        unet = build_unet(config)
        if base != 128:
            widths = tuple(width * base // 128 for width in unet.config.block_out_channels)
            unet = FlexiUNet2DModel(res, block_out_channels=widths, decoder_exit=decoder_exit)
    assert isinstance(unet, FlexiUNet2DModel)
    return unet


def average_gflops(res: int, levels: int, decoder_exit: str = "early") -> float:
    """GFLOPs per image and step of the paper's model, averaged over the timesteps."""
    scheduler = SSDScheduler(sample_size=res, num_levels=levels)
    return mean_gflops(route_costs(paper_network(res, decoder_exit), scheduler))


def preset_gflops(path: Path) -> float:
    """GFLOPs per image and step of a preset; corrective noise's whole chain is set against the others' 1000 steps."""
    config = parse_train_config(["--config", str(path)])
    with torch.device("meta"):
        unet = build_unet(config)
    scheduler = build_scheduler(config)
    costs = route_costs(unet, scheduler)
    return mean_gflops(costs) * len(scheduler) / scheduler.config.num_train_timesteps


def seconds_per_image(unet: Any, scheduler: SSDScheduler, timesteps: Sequence[int], eta: float, batch: int) -> float:
    """Wall-clock seconds per image of sampling with a network of random weights, after a warm-up."""
    from ..pipeline_ssd import SSDPipeline

    pipeline = SSDPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    warm_up = sorted({timesteps[0], *scheduler.process.required_timesteps}, reverse=True)
    pipeline(batch, timesteps=warm_up, output_type="latent")
    start = time.perf_counter()
    pipeline(batch, timesteps=timesteps, eta=eta, output_type="latent")
    return (time.perf_counter() - start) / batch
