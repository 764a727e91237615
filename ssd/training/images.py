"""The images of a run in their order: numbered 0, 1, 2, .. as the run sees them, whatever the number of processes.

Everything random about an image is a function of the seed and its number, and the order is a function of the seed and
the position. So a run is the same whether it was interrupted or not, and on one process or on several. Which process
has which images is known here, and nowhere else.

Shape letters: B images of this process, C channels, R the full resolution.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..data import ImageStream
from ..data.dataset import ImageDataset
from ..operators.placing import to_device
from ..seeding import numpy_generator
from .run_config import RunConfig, images_per_batch


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


START = Position()
"""The beginning."""


@dataclass(frozen=True)
class Plan:
    """A batch before its images are loaded.

    Attributes
    ----------
    numbers : range
        The images' numbers.
    end : Position
        Where the run is after this batch.
    """

    numbers: range
    end: Position


AnyPlan = TypeVar("AnyPlan", bound=Plan)


@dataclass(frozen=True)
class Loaded(Generic[AnyPlan]):
    """A batch as it comes from the data.

    Attributes
    ----------
    plan : Plan
    x_0 : torch.Tensor
        Images (B, C, R, R), float32, values in [-1, 1], on the device.
    labels : torch.Tensor or None
        (B,), int64, on the CPU, where the data have them.
    seconds_waited : float
        For the images.
    """

    plan: AnyPlan
    x_0: torch.Tensor
    labels: torch.Tensor | None
    seconds_waited: float


class OrderedImages(Iterator[Loaded[AnyPlan]]):
    """The images of endless plans, from any position.

    Every epoch is a new permutation that depends on (seed, epoch) alone; a stream has an order of its own.

    Parameters
    ----------
    config : RunConfig
    dataset : ImageDataset or ImageStream
        Of `ssd.data.open_dataset`.
    plans : iterator of Plan
        From `start` on.
    start : Position
    rank, world_size : int
        This process, and their number.
    device : torch.device
        Where the images go.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: ImageDataset | ImageStream,
        plans: Iterator[AnyPlan],
        start: Position,
        rank: int,
        world_size: int,
        device: torch.device,
    ) -> None:
        self._config, self._dataset, self._plans, self._device = config, dataset, plans, device
        self._rank, self._world_size = rank, world_size
        self._loading: deque[AnyPlan] = deque()  # planned, with images still under way
        self._items = iter(self._open_loader(start))

    def __next__(self) -> Loaded[AnyPlan]:
        start = time.perf_counter()
        item = next(self._items)
        seconds_waited = time.perf_counter() - start
        plan = self._loading.popleft() if self._loading else next(self._plans)
        return Loaded(plan, to_device(item["image"], self._device), item.get("label"), seconds_waited)

    def mirrored(self, x_0: torch.Tensor, uniforms: np.ndarray) -> torch.Tensor:
        """With --random_flip, about half of the images left to right; `uniforms`: a number in [0, 1) for each."""
        if not self._config.random_flip:
            return x_0
        flipped = to_device(torch.from_numpy(uniforms < 0.5), self._device).view(-1, 1, 1, 1)
        return torch.where(flipped, x_0.flip(-1), x_0)

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


def own_normals(words: np.ndarray, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Standard normals (B, *shape), float32 also under autocast, each image's from a 64-bit word of its own."""
    noise = torch.empty(len(words), *shape, device=generator.device)
    for image, seed in zip(noise, (words >> np.uint64(1)).tolist()):
        image.normal_(generator=generator.manual_seed(seed))
    return noise


def epoch_indices(plans: Iterator[AnyPlan], loading: deque[AnyPlan], length: int, seed: int) -> Iterator[list[int]]:
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
