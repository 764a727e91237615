"""Training batches: images with all that is random about them.

Images are numbered 0, 1, 2, .. in the order in which the run sees them. Everything random about an image (its flip,
dropped label, timestep and noise) is a function of the seed and this number; the order and the route of a batch are
functions of the seed and its position. So a run is the same whether it was interrupted or not, and on one process or
on several. Which process has which images is known here, and nowhere else.

Shape letters: B images of this process, C channels, R the full resolution, h w the size of x_t.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..data import ImageStream
from ..data.dataset import ImageDataset
from ..operators.placing import to_device
from ..operators.sizes import Size
from ..process.diffusion import DiffusionProcess
from ..process.switches import switch_bands
from ..seeding import numpy_generator, random_words, uniform
from .config import TrainConfig
from .routes import BatchRoute, BatchRoutes
from .run_config import images_per_batch


@dataclass(frozen=True)
class Position:
    """Where a run is in the endless sequence of images.

    Attributes
    ----------
    batches, images : int
        How many were seen, by all processes.
    """

    batches: int = 0
    images: int = 0


@dataclass(frozen=True)
class Batch:
    """One batch of this process, on one route.

    Attributes
    ----------
    x_0 : torch.Tensor
        Clean images (B, C, R, R), float32, values in [-1, 1], on the device.
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


@dataclass(frozen=True)
class _Plan:
    """A batch before its images are loaded."""

    route: BatchRoute
    numbers: range
    end: Position


class TrainingBatches(Iterator[Batch]):
    """Endless batches, from any position.

    Every epoch is a new permutation that depends on (seed, epoch) alone; a stream has an order of its own. Batch k of
    all W processes takes the next W B images of the sequence, process r the r-th part of them.

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
        start: Position = Position(),
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        jitter = config.switch_jitter
        bands = switch_bands(process.required_timesteps, process.num_timesteps, jitter) if jitter else []
        probability, weights = config.transition_probability, config.importance_weights
        self.routes = BatchRoutes(process, config.seed, probability, weights, bands)
        self._config, self._dataset, self._no_class = config, dataset, no_class
        self._rank, self._world_size, self._device = rank, world_size, torch.device(device)
        self._sizes = process.resolution.resolutions
        self._noise_generator = torch.Generator(self._device)
        self._plans = endless_plans(config, self.routes, start, rank, world_size)
        self._loading: deque[_Plan] = deque()  # planned, with images still under way
        self._items = iter(self._open_loader(start))

    def __next__(self) -> Batch:
        start = time.perf_counter()
        item = next(self._items)
        seconds_waited = time.perf_counter() - start
        plan = self._loading.popleft() if self._loading else next(self._plans)
        words = random_words(self._config.seed, "image", plan.numbers)
        flips, drops, times = uniform(words[:, :3]).T
        x_0 = self._move(item["image"])
        return Batch(
            x_0=self._flip(x_0, flips),
            t=self.routes.timesteps(plan.route, times),
            noise=self._noise(
                words[:, 3], (x_0.shape[1], *self.routes.process.resolution.resolutions[plan.route.level])
            ),
            labels=None if self._no_class is None else self._labels(item["label"], drops, self._no_class),
            process=plan.route.process,
            output_size=plan.route.output_size,
            level=plan.route.level,
            weight=plan.route.weight,
            numbers=plan.numbers,
            end=plan.end,
            seconds_waited=seconds_waited,
        )

    def _open_loader(self, start: Position) -> DataLoader:
        workers = self._config.num_workers
        loading: dict[str, Any] = {
            "num_workers": workers,
            "pin_memory": self._device.type == "cuda",
            "persistent_workers": workers > 0,
        }
        if isinstance(self._dataset, ImageStream):
            self._dataset.set_position(start.images, self._rank, self._world_size, self._config.seed)
            return DataLoader(self._dataset, images_per_batch(self._config, self._world_size), **loading)
        # Nothing that the loader holds refers back to this object: its workers end as soon as nobody uses it.
        indices = epoch_indices(self._plans, self._loading, len(self._dataset), self._config.seed)
        return DataLoader(self._dataset, batch_sampler=indices, **loading)

    def _flip(self, x_0: torch.Tensor, uniforms: np.ndarray) -> torch.Tensor:
        """Mirror about half of the images left to right."""
        if not self._config.random_flip:
            return x_0
        mirrored = self._move(torch.from_numpy(uniforms < 0.5)).view(-1, 1, 1, 1)
        return torch.where(mirrored, x_0.flip(-1), x_0)

    def _labels(self, labels: torch.Tensor, uniforms: np.ndarray, no_class: int) -> torch.Tensor:
        dropped = torch.from_numpy(uniforms < self._config.label_dropout)
        return self._move(torch.where(dropped, no_class, labels))

    def _noise(self, seeds: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
        """White noise (B, C, h, w): float32 also under autocast, each image from a seed of its own."""
        noise = torch.empty(len(seeds), *shape, device=self._device)
        for image, seed in zip(noise, (seeds >> np.uint64(1)).tolist()):
            image.normal_(generator=self._noise_generator.manual_seed(seed))
        return noise

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        """To the device, without waiting for it."""
        return to_device(tensor, self._device)


def endless_plans(
    config: TrainConfig, routes: BatchRoutes, position: Position, rank: int, world_size: int
) -> Iterator[_Plan]:
    """The plans of the batches of process `rank` from `position` on."""
    own = images_per_batch(config, world_size)
    while True:
        route = routes.route(position.batches)
        size = max(1, round(own * config.level_batch_scale**route.level))
        first = position.images + rank * size
        position = Position(position.batches + 1, position.images + world_size * size)
        yield _Plan(route, range(first, first + size), position)


def epoch_indices(plans: Iterator[_Plan], loading: deque[_Plan], length: int, seed: int) -> Iterator[list[int]]:
    """The data set's indices of each batch. The loader asks ahead, so the plans wait in `loading` for their images."""
    epoch, order = -1, np.empty(0, dtype=np.int64)
    for plan in plans:
        indices = []
        for number in plan.numbers:
            if number // length != epoch:
                epoch = number // length
                order = numpy_generator(seed, "epoch", epoch).permutation(length)
            indices.append(int(order[number % length]))
        loading.append(plan)
        yield indices
