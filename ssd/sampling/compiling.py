"""torch.compile for Flexi-UNet: every route, and every batch length, is a graph of its own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers import DiffusionPipeline

from ..pipelines.guidance import number_of_classes
from ..schedulers.base import ProcessScheduler

MAX_GRAPHS = 256
"""Above this PyTorch refuses; its own limit is 8. 6 levels have 11 routes, each one graph per batch length."""


def compile_network(unet: torch.nn.Module, mode: str | None = None) -> None:
    """Compile the network in place; each graph is made when its route runs for the first time.

    Parameters
    ----------
    unet : torch.nn.Module
    mode : str, optional
        The mode of `torch.compile`.
    """
    torch._dynamo.config.recompile_limit = max(MAX_GRAPHS, torch._dynamo.config.recompile_limit)
    unet.compile(dynamic=False, fullgraph=True, mode=mode)


def compile_pipeline(pipeline: DiffusionPipeline, batch_sizes: Iterable[int], max_batch_size: int) -> None:
    """Compile the network of a pipeline for sampling and run every route once, so that later runs are at full speed.

    A progress bar of its own stays, with the time that it took.

    Parameters
    ----------
    pipeline : SSDPipeline
    batch_sizes : iterable of int
        Numbers of images that will be drawn together.
    max_batch_size : int
        The `max_batch_size_per_level` of later calls.
    """
    compile_network(pipeline.unet, "reduce-overhead" if pipeline.device.type == "cuda" else None)
    bar = dict(getattr(pipeline, "_progress_bar_config", {}))
    pipeline.set_progress_bar_config(desc="compiling", unit=" routes")
    for batch_size in sorted({max(2, size) for size in batch_sizes}):
        pipeline(
            batch_size,
            timesteps=every_route(pipeline.scheduler),
            switches=pipeline.scheduler.switches,
            class_labels=[0] * batch_size if number_of_classes(pipeline.unet) else None,
            output_type="latent",
            max_batch_size_per_level=max_batch_size,
        )
    pipeline.set_progress_bar_config(**bar)


def every_route(scheduler: ProcessScheduler) -> list[int]:
    """The shortest chain of timesteps that takes every route: a step within each level, and all that are required."""
    within = [t for t in range(len(scheduler)) if scheduler.size_at(t) == scheduler.size_at(t - 1)]
    last_within = {scheduler.size_at(t): t for t in within}
    return sorted({*last_within.values(), *scheduler.process.required_timesteps}, reverse=True)
