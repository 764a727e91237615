"""What a run measures of images that it does not learn from: the training loss, and bits per dimension.

Their timesteps and noise never change, so that differences between steps, and between runs, are not those of chance.

Shape letter: B images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from diffusers.models.modeling_utils import ModelMixin

from ..data.dataset import ImageDataset
from ..evaluation.given_images import ImageBatch, NumberedImages
from ..evaluation.likelihood import LikelihoodSettings, estimate_bits_per_dim
from ..operators.placing import to_device
from ..pipeline_ssd import SSDPipeline
from ..process.diffusion import DiffusionProcess
from ..process.losses import denoising_loss, training_pair
from ..process.posterior import white_noise
from ..schedulers.base import ProcessScheduler
from ..scheduling_ssd import SSDScheduler
from ..seeding import torch_generator
from .config import TrainConfig
from .routes import BatchRoute, BatchRoutes

COLUMNS = ("valid_loss", "valid_bits_per_dim")
"""Of log.csv."""

BATCH = 64
"""Images at once, at most."""

LIKELIHOOD = LikelihoodSettings(draws=10, covariance="theorem3")
"""Few draws of the bound per image: a run compares means over images."""


def measure_held_out(
    config: TrainConfig, unet: ModelMixin, scheduler: ProcessScheduler, dataset: ImageDataset, accelerator: Accelerator
) -> dict[str, float]:
    """`COLUMNS` of all images, from all processes together, the same numbers on each.

    Parameters
    ----------
    config : TrainConfig
    unet : ModelMixin
        In evaluation mode, on the accelerator's device or on the CPU.
    scheduler : ProcessScheduler
        Of the process that is learned; bits per dimension are those of an `SSDScheduler` alone.
    dataset : ImageDataset
        The images.
    accelerator : Accelerator
    """
    own = list(range(accelerator.process_index, len(dataset), accelerator.num_processes))
    batch_size = min(config.micro_batch_size or BATCH, BATCH)
    images = NumberedImages(dataset, own, batch_size, unet.device, config.class_conditional)
    numbers = {"valid_loss": held_out_loss(config, unet, scheduler, images, accelerator)}
    if isinstance(scheduler, SSDScheduler):
        bits = estimate_bits_per_dim(SSDPipeline(unet, scheduler), images, LIKELIHOOD, 0, PartialState())
        numbers["valid_bits_per_dim"] = bits["bits_per_dim"]
    return numbers


@torch.no_grad()
def held_out_loss(
    config: TrainConfig, unet: ModelMixin, scheduler: ProcessScheduler, images: NumberedImages, accelerator: Accelerator
) -> float:
    """The loss of training, in expectation over its routes: every image takes every route, at a timestep of its own."""
    routes, total = every_route(scheduler.process), torch.zeros((), dtype=torch.float64, device=accelerator.device)
    for batch in images:
        for number, (route, share) in enumerate(routes):
            generators = [torch_generator(0, "held out", image, number) for image in batch.numbers]
            losses = _losses(config, unet, scheduler, batch, route, generators)
            total += share * losses.double().sum().to(total.device)
    return float(accelerator.reduce(total, reduction="sum")) / len(images.dataset)


def every_route(process: DiffusionProcess) -> list[tuple[BatchRoute, float]]:
    """All routes of training batches, with how often they occur where t is uniform."""
    changes, routes = process.required_timesteps, BatchRoutes(process, 0)
    within = {level: process.shared_timesteps(level) for level in range(len(process.resolution.resolutions))}
    timesteps = [of_level[0] for of_level in within.values() if of_level]
    counts = [len(of_level) for of_level in within.values() if of_level]
    found = [routes.at(t) for t in [*timesteps, *changes]]
    return [(route, count / process.num_timesteps) for route, count in zip(found, counts + [1] * len(changes))]


def _losses(
    config: TrainConfig,
    unet: ModelMixin,
    scheduler: ProcessScheduler,
    batch: ImageBatch,
    route: BatchRoute,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """The losses of images on one route, each with its own generator: (B,)."""
    process, x_0, kind = route.process, batch.x_0, scheduler.config.prediction_type
    uniforms = np.array([float(torch.rand((), dtype=torch.float64, generator=own)) for own in generators])
    t = BatchRoutes(process, config.seed).timesteps(route, uniforms)
    size = process.resolution.resolutions[route.level]
    noise = white_noise(x_0.new_empty(x_0.shape[0], x_0.shape[1], *size), generators)
    network_input, target = training_pair(process, x_0, t, noise, kind)
    labels = None if batch.labels is None else torch.tensor(batch.labels, device=x_0.device)
    output = unet(network_input, to_device(t, x_0.device), class_labels=labels, output_size=route.output_size).sample
    clipped = process.target(x_0, t) if config.clipped_loss else None
    return denoising_loss(process, output, target, t, kind, config.loss, config.max_snr, clipped)
