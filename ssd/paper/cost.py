"""GFLOPs and seconds: what the paper's networks cost, counted on the meta device, and measured on this machine."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from flexi_unet import FlexiUNet2DModel

from ..operators.sizes import Size
from ..schedulers.base import ProcessScheduler
from ..scheduling_ssd import SSDScheduler
from ..training.build import build_scheduler, build_unet
from ..training.config import TrainConfig, parse_train_config
from ..training.summary import mean_gflops, route_costs

Row = TypeVar("Row", bound=Hashable)


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


@cache
def preset_gflops(path: Path) -> tuple[float, float]:
    """GFLOPs per image and step of a preset: all of them, and without the matrix products inside attention.

    The paper's figures are the second: its counter leaves out queries times keys and weights times values. Corrective
    noise makes some steps twice; its whole chain is set against the others' 1000 steps.
    """
    config = parse_train_config(["--config", str(path)])
    with torch.device("meta"):
        unet = build_unet(config)
    scheduler = build_scheduler(config)
    process, steps = scheduler.process, scheduler.config.num_train_timesteps
    routes = Counter(
        unet.working_sizes(process.size(t), process.prediction_size(t, t - 1)) for t in range(process.num_timesteps)
    )
    counts = {route: _count(unet, *route) for route in routes}
    total = sum(number * sum(counts[route]) for route, number in routes.items())
    products = sum(number * counts[route][1] for route, number in routes.items())
    return total / steps, (total - products) / steps


def _count(unet: Any, input_size: Size, output_size: Size) -> tuple[float, float]:
    """GFLOPs of one image outside of attention's products, and of these."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet(torch.empty(1, unet.config.in_channels, *input_size), torch.zeros(1), output_size=output_size)
    by_operator = counter.get_flop_counts()["Global"]
    products = sum(flops for name, flops in by_operator.items() if "bmm" in str(name) or "attention" in str(name))
    return (counter.get_total_flops() - products) / 1e9, products / 1e9


def median_seconds(work: Mapping[Row, Callable[[], float]], repeats: int, title: str) -> dict[Row, float]:
    """The median of every row's seconds. Rows take turns, so that other work on the machine slows all of them."""
    found: dict[Row, list[float]] = {row: [] for row in work}
    with tqdm(total=repeats * len(work), desc=title, unit=" runs") as bar:
        for _ in range(repeats):
            for row, measure in work.items():
                found[row].append(measure())
                bar.update()
    return {row: statistics.median(seconds) for row, seconds in found.items()}


def seconds_per_image(
    unet: Any, scheduler: ProcessScheduler, timesteps: Sequence[int], eta: float, batch: int
) -> float:
    """Wall-clock seconds per image of sampling with a network of random weights, after a warm-up of every size."""
    from ..pipeline_ssd import SSDPipeline

    pipeline = SSDPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    warm_up = sorted({timesteps[0], *scheduler.process.required_timesteps, timesteps[-1]}, reverse=True)
    pipeline(batch, timesteps=warm_up, output_type="latent")
    start = time.perf_counter()
    pipeline(batch, timesteps=timesteps, eta=eta, output_type="latent")
    return (time.perf_counter() - start) / batch
