"""What a run publishes when it saves: the pipeline of the averaged weights, with its model card."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from diffusers import DiffusionPipeline

from ..pipeline_ssd import SSDPipeline
from ..publishing.model_card import model_card
from ..schedulers.base import ProcessScheduler
from .checkpoints import Progress, TrainState
from .config import TrainConfig
from .run_config import RunConfig
from .summary import mean_gflops, route_costs

LICENCE = "The weights are yours; mind the licence of the data they were trained on."

Release = Callable[[], tuple[DiffusionPipeline, str]]
"""Gives the pipeline as it is now, and the text of its card."""


def ssd_release(
    config: TrainConfig, state: TrainState, scheduler: ProcessScheduler, changes: list[dict[str, Any]]
) -> Release:
    """The release of a run of Scale Space Diffusion; `changes`: settings that changed when the run was resumed."""
    gflops = mean_gflops(route_costs(state.ema.networks[0], scheduler))
    of_ssd = {
        "Loss": f"{config.loss} of {config.prediction_type}"
        + (f", up to an SNR of {config.max_snr:g}" if config.loss != "simple" else "")
        + (", after clipping" if config.clipped_loss else ""),
        "Cost": f"{gflops:.2f} GFLOPs per image and step, averaged over the timesteps",
    }

    def release() -> tuple[SSDPipeline, str]:
        pipeline = SSDPipeline(state.ema.networks[0], copy.deepcopy(scheduler))
        origin = origin_of(config, state.progress, changes, of_ssd, f", in {config.routes_per_step} routes")
        return pipeline, model_card(pipeline, config.out, origin, LICENCE)

    return release


def origin_of(
    config: RunConfig,
    progress: Progress,
    changes: list[dict[str, Any]],
    of_the_model: dict[str, str],
    batch: str = "",
) -> dict[str, str]:
    """Where the weights of a run come from: data, steps, hours, recipe, and what the kind of model adds."""
    origin = {
        "Data": f"{config.data}, crop preset {config.crop_preset}",
        "Steps": f"{progress.step} of {config.total_steps}, {progress.images} images, {progress.hours:.2f} hours",
        "Batch": f"{config.global_batch_size} images per step{batch}",
        "Optimizer": f"AdamW, learning rate {config.learning_rate:g} ({config.lr_scheduler}), "
        f"weight decay {config.weight_decay:g}",
        "Weights": f"moving average, decay {config.ema_decays[0]:g}",
        **of_the_model,
        "Seed": str(config.seed),
    }
    if config.num_valid:
        origin["Held out"] = f"{config.num_valid} images"
    if changes:
        told = (f"{each['setting']} {each['before']} -> {each['after']} at step {each['step']}" for each in changes)
        origin["Changes"] = ", ".join(told)
    return origin
