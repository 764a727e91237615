"""Training batches: images with all that is random about them.

Images come in the order of `images`. Everything random about one (its flip, dropped label, timestep and noise) is a
function of the seed and its number; the route of a batch is a function of the seed and its position.

Shape letters: B images of this process, C channels, R the full resolution, h w the size of x_t.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..data import ImageStream
from ..data.dataset import ImageDataset
from ..operators.placing import to_device
from ..operators.sizes import Size
from ..process.diffusion import DiffusionProcess
from ..process.switches import switch_bands
from ..seeding import random_words, uniform
from .config import TrainConfig
from .images import START, OrderedImages, Plan, Position, own_normals
from .routes import BatchRoute, BatchRoutes
from .run_config import images_per_batch


@dataclass(frozen=True)
class Batch:
    """One batch of this process, on one route.

    Attributes
    ----------
    x_0 : torch.Tensor
        Clean images (B, C, R, R), float32, values in [-1, 1], on the device. Where the data have images of several
        sizes, the images at the size of the target.
    t : torch.Tensor
        Timesteps (B,), int64, on the CPU.
    noise : torch.Tensor
        White noise (B, C, h, w), float32, on the device.
    labels : torch.Tensor or None
        (B,), int64, on the device; "no class" where a label was dropped; None for unconditional runs.
    process : DiffusionProcess
        With the switches of this batch.
    output_size : (height, width)
        Of the target.
    level : int
        The level of x_t, 0 the finest.
    weight : float
        Importance weight of the loss.
    numbers : range
        The images' numbers.
    end : Position
        Where the run is after this batch.
    seconds_waited : float
        For the images.
    """

    x_0: torch.Tensor
    t: torch.Tensor
    noise: torch.Tensor
    labels: torch.Tensor | None
    process: DiffusionProcess
    output_size: Size
    level: int
    weight: float
    numbers: range
    end: Position
    seconds_waited: float

    def split(self, most: int | None) -> list[Batch]:
        """The same images in parts of at most `most`, as equal as possible; the whole batch for None."""
        count = 1 if most is None else -(-len(self.t) // most)
        labels = [None] * count if self.labels is None else self.labels.tensor_split(count)
        tensors = zip(self.x_0.tensor_split(count), self.t.tensor_split(count), self.noise.tensor_split(count), labels)
        return [replace(self, x_0=x_0, t=t, noise=noise, labels=part) for x_0, t, noise, part in tensors]


@dataclass(frozen=True, kw_only=True)
class _RoutedPlan(Plan):
    """A batch before its images are loaded, with the route that they share."""

    route: BatchRoute


class TrainingBatches(Iterator[Batch]):
    """Endless batches, from any position.

    Batch k of all W processes takes the next W B images of the sequence, process r the r-th part of them.

    Parameters
    ----------
    config : TrainConfig
    dataset : ImageDataset or ImageStream
        Of `ssd.data.open_dataset`.
    process : DiffusionProcess
    no_class : int, optional
        The label that stands for "no class"; None for an unconditional run.
    start : Position
    rank, world_size : int
        This process, and W.
    device : torch.device
        Where images and noise go.

    Attributes
    ----------
    routes : BatchRoutes
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: ImageDataset | ImageStream,
        process: DiffusionProcess,
        no_class: int | None = None,
        start: Position = START,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        jitter = config.switch_jitter
        bands = switch_bands(process.required_timesteps, process.num_timesteps, jitter) if jitter else []
        probability, weights = config.transition_probability, config.importance_weights
        self.routes = BatchRoutes(process, config.seed, probability, weights, bands)
        self._config, self._no_class, self._device = config, no_class, torch.device(device)
        self._noise_generator = torch.Generator(self._device)
        plans = endless_plans(config, self.routes, start, rank, world_size)
        self._images = OrderedImages(config, dataset, plans, start, rank, world_size, self._device, at_target_size)

    def __next__(self) -> Batch:
        loaded = next(self._images)
        plan, x_0 = loaded.plan, loaded.x_0
        words = random_words(self._config.seed, "image", plan.numbers)
        flips, drops, times = uniform(words[:, :3]).T
        shape = (x_0.shape[1], *self.routes.process.resolution.resolutions[plan.route.level])
        return Batch(
            x_0=self._images.mirrored(x_0, flips),
            t=self.routes.timesteps(plan.route, times),
            noise=own_normals(words[:, 3], shape, self._noise_generator),
            labels=None if self._no_class is None else self._labels(loaded.labels, drops, self._no_class),
            process=plan.route.process,
            output_size=plan.route.output_size,
            level=plan.route.level,
            weight=plan.route.weight,
            numbers=plan.numbers,
            end=plan.end,
            seconds_waited=loaded.seconds_waited,
        )

    def _labels(self, labels: torch.Tensor | None, uniforms: np.ndarray, no_class: int) -> torch.Tensor:
        assert labels is not None  # else opening the data was refused
        dropped = torch.from_numpy(uniforms < self._config.label_dropout)
        return to_device(torch.where(dropped, no_class, labels), self._device)


def endless_plans(
    config: TrainConfig, routes: BatchRoutes, position: Position, rank: int, world_size: int
) -> Iterator[_RoutedPlan]:
    """The plans of the batches of process `rank` from `position` on."""
    own = images_per_batch(config, world_size)
    while True:
        route = routes.route(position.batches)
        size = max(1, round(own * config.level_batch_scale**route.level))
        first = position.images + rank * size
        position = Position(position.batches + 1, position.images + world_size * size)
        yield _RoutedPlan(range(first, first + size), position, route.target_level, route=route)


def at_target_size(plan: _RoutedPlan, images: list[torch.Tensor]) -> torch.Tensor:
    """Images (C, h, w) of several levels, none coarser than the target, at the target's size: (B, C, H, W).

    Each is downsampled by the process from the level that it fills, a picture of the target's size not at all.
    """
    process, level = plan.route.process, plan.route.target_level
    of_size: dict[torch.Size, list[int]] = {}
    for number, image in enumerate(images):
        of_size.setdefault(image.shape, []).append(number)
    inside = process.resolution.level_starts[level] + 1  # a timestep whose target is of this level
    parts = [process.target(torch.stack([images[i] for i in numbers]), inside) for numbers in of_size.values()]
    places = torch.tensor([number for numbers in of_size.values() for number in numbers])
    return torch.cat(parts)[to_device(places.argsort(), images[0].device)]
