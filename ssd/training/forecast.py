"""What a run will take on this machine: time, memory, disk, passes over the data. Measured and counted by --dry_run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
from accelerate import Accelerator

from .checkpoints import read_description
from .config import TrainConfig
from .setup import Setup
from .timing import SECONDS, RouteTime, free_bytes, time_reading, time_routes, time_update

FLOAT = 4
"""Bytes."""


@dataclass(frozen=True)
class Forecast:
    """What was measured and counted, and what follows from it.

    Attributes
    ----------
    config : TrainConfig
    routes : list of RouteTime
    update : float
        Seconds of optimizer, clipping and averages.
    reading : float or None
        Seconds that one process needs for an image; None for a stream.
    weights : int
        Bytes of the network's weights, in float32.
    resident : int
        Bytes that the program has already, with data and weights; on a GPU the weights alone.
    free_memory, free_disk : int
        Bytes, of the GPU or else the machine, and where --out is.
    num_images : int or None
    num_processes : int
    half : bool
        Whether activations have 16 bits.
    steps_done : int
        Of a run that continues.
    """

    config: TrainConfig
    routes: list[RouteTime]
    update: float
    reading: float | None
    weights: int
    resident: int
    free_memory: int
    free_disk: int
    num_images: int | None
    num_processes: int = 1
    half: bool = False
    steps_done: int = 0

    @property
    def images_per_step(self) -> float:
        """Of all processes, in the mean over routes."""
        own = sum(timed.route.share * timed.images for timed in self.routes)
        return own * self.config.routes_per_step * self.num_processes

    @property
    def computing(self) -> float:
        """Seconds per step: every route weighted by its share of the batches, and the update."""
        batches = sum(timed.route.share * timed.seconds for timed in self.routes)
        return batches * self.config.routes_per_step + self.update

    @property
    def loading(self) -> float:
        """Seconds per step until the images of a process are read, by all of its workers."""
        own = self.images_per_step / self.num_processes
        return own * (self.reading or 0) / max(1, self.config.num_workers)

    @property
    def step(self) -> float:
        """Seconds per step: workers read while the network computes."""
        if self.config.num_workers:
            return max(self.computing, self.loading)
        return self.computing + self.loading

    @property
    def hours(self) -> float:
        """Of the steps that are left."""
        return (self.config.total_steps - self.steps_done) * self.step / 3600

    @property
    def passes(self) -> float | None:
        """How often the whole run sees every image, in the mean."""
        return self.config.total_steps * self.images_per_step / self.num_images if self.num_images else None

    @property
    def averages(self) -> int:
        """How many averages of the weights there are."""
        return len(self.config.ema_decays) + len(self.config.posthoc_widths)

    @property
    def fixed_memory(self) -> int:
        """Bytes of weights, gradients, the two moments of AdamW, and averages, with what the program has already."""
        averages = 0 if self.config.ema_on_cpu and self.resident == self.weights else self.averages
        return self.resident + (3 + averages) * self.weights

    @property
    def memory(self) -> float:
        """Bytes at the peak: what is always there, and what the way back needs of the images of the largest batch."""
        return self.fixed_memory + max(map(self.of_batch, self.routes))

    def of_image(self, timed: RouteTime) -> float:
        """Bytes that the way back needs of an image."""
        return timed.kept / 2 if self.half else timed.kept

    def of_batch(self, timed: RouteTime) -> float:
        """Bytes that the way back needs of the images that are in the network at once."""
        return self.of_image(timed) * timed.at_once

    @property
    def disk(self) -> int:
        """Bytes of the checkpoints that stay, of one that is being written, of stored averages, and of the pipeline."""
        config, saves = self.config, -(-self.config.total_steps // self.config.save_every)
        milestones = config.total_steps // config.milestone_every if config.milestone_every else 0
        checkpoint = (3 + self.averages) * self.weights
        kept = min(saves, config.checkpoints_total_limit + milestones)
        return (kept + 1) * checkpoint + (1 + saves * len(config.posthoc_widths)) * self.weights


def forecast(setup: Setup, accelerator: Accelerator, seconds: float = SECONDS) -> Forecast:
    """Measure on random images for about `seconds`, and count; the network is of no more use for training then."""
    config, device, checkpoint = setup.config, accelerator.device, setup.start.checkpoint
    free = free_bytes(device)
    weights = sum(FLOAT * weight.numel() for weight in setup.unet.parameters())
    setup.unet.to(device)
    if config.gradient_checkpointing:
        setup.unet.enable_gradient_checkpointing()
    return Forecast(
        config,
        routes=time_routes(setup, accelerator, seconds),
        update=time_update(setup, accelerator),
        reading=time_reading(setup.dataset, config.seed),
        weights=weights,
        resident=psutil.Process().memory_info().rss if device.type == "cpu" else weights,
        free_memory=free,
        free_disk=shutil.disk_usage(_existing(Path(config.out))).free,
        num_images=setup.dataset.count,
        num_processes=accelerator.num_processes,
        half=accelerator.mixed_precision in ("bf16", "fp16"),
        steps_done=read_description(checkpoint).progress.step if checkpoint is not None else 0,
    )


def _existing(path: Path) -> Path:
    """The nearest folder that is there already."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
