"""What a run would be: configuration, levels with their cost, and the files that it writes."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import yaml

from flexi_unet.flops import count_gflops

from ..schedulers.base import ProcessScheduler
from .config import TrainConfig
from .routes import route_shares
from .run_config import RunConfig
from .run_folder import WRITTEN

PIPELINE = "the pipeline with EMA weights, for {name}.from_pretrained"


def summarize(config: TrainConfig, unet: Any, scheduler: ProcessScheduler, num_images: int | None) -> str:
    """A text for people: the resolved configuration, levels, parameters, GFLOPs and what will be written."""
    millions = sum(parameter.numel() for parameter in unet.parameters()) / 1e6
    lines = [f"Network: {millions:.1f} M parameters, widths {list(unet.config.block_out_channels)}", ""]
    lines += level_table(unet, scheduler)
    return describe(
        config, num_images, lines, {"model_index.json, unet/, scheduler/": PIPELINE.format(name="SSDPipeline")}
    )


def describe(config: RunConfig, num_images: int | None, network: list[str], pipeline: dict[str, str]) -> str:
    """A text for people: the resolved configuration, the data, lines on the network, and what will be written.

    Parameters
    ----------
    config : RunConfig
    num_images : int, optional
        None for a stream.
    network : list of str
    pipeline : dict of str to str
        The files of the pipeline, and what they are.
    """
    lines = ["Configuration", *_indent(yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True).rstrip())]
    lines += ["", f"Data: {num_images or 'a stream of'} images from {config.data}", *network]
    written = pipeline | WRITTEN
    return "\n".join(
        [*lines, "", f"Written to {config.out}/", *(f"  {name:38} {what}" for name, what in written.items())]
    )


def route_costs(unet: Any, scheduler: ProcessScheduler) -> list[tuple[str, int, float]]:
    """Every route with its number of timesteps and its GFLOPs per image, finest first."""
    process = scheduler.process
    routes = Counter((process.size(t), process.prediction_size(t, t - 1)) for t in range(process.num_timesteps))
    costs = []
    for (size, output_size), count in routes.items():
        name = f"{size[0]} x {size[1]}"
        if output_size != size:
            name += f" -> {output_size[0]} x {output_size[1]}"
        costs.append((name, count, count_gflops(unet, size, output_size)))
    return costs


def mean_gflops(costs: list[tuple[str, int, float]]) -> float:
    """GFLOPs per image and step, averaged over all timesteps."""
    return sum(count * gflops for _, count, gflops in costs) / sum(count for _, count, _ in costs)


def training_gflops(config: TrainConfig, unet: Any, scheduler: ProcessScheduler) -> float:
    """GFLOPs of an image's way forward through the network in training, averaged over the images of all batches.

    Level changes are as frequent as --transition_probability says, and coarser levels have --level_batch_scale times
    more images. Moving switches count as if they stood still. The way back costs about twice as much again.
    """
    images = gflops = 0.0
    for route in route_shares(scheduler.process, config.transition_probability):
        number = route.share * config.level_batch_scale**route.level
        images += number
        gflops += number * count_gflops(unet, route.size, route.output_size)
    return gflops / images


def sampling_gflops(unet: Any, scheduler: ProcessScheduler) -> float:
    """GFLOPs per image of the whole chain that the scheduler is set to."""
    chain = scheduler.timesteps.tolist()
    return sum(count_gflops(unet, scheduler.size_at(t), scheduler.prediction_size(t)) for t in chain)


def level_table(unet: Any, scheduler: ProcessScheduler) -> list[str]:
    """Lines of a table of `route_costs`, with their mean."""
    costs = route_costs(unet, scheduler)
    mean = ("mean over timesteps", sum(count for _, count, _ in costs), mean_gflops(costs))
    header = f"  {'route':24} {'timesteps':>9} {'GFLOPs per image':>17}"
    return [header, *(f"  {name:24} {count:9d} {gflops:17.3f}" for name, count, gflops in [*costs, mean])]


def _indent(text: str) -> list[str]:
    return ["  " + line for line in text.splitlines()]
