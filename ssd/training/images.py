"""The images of a run in their order: numbered 0, 1, 2, .. as the run sees them, whatever the number of processes.

Everything random about an image is a function of the seed and its number, and the order is a function of the seed and
the position. So a run is the same whether it was interrupted or not, and on one process or on several. Which process
has which images is known here, and nowhere else.

Shape letters: B images of this process, C channels, R the full resolution.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..data import ImageStream
from ..data.dataset import ImageDataset, Item
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
    finest_level : int
        Of all that the batch touches. Where images have several sizes, it takes those of this level and of finer ones.
    """

    numbers: range
    end: Position
    finest_level: int = 0


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

    Every epoch is a new permutation that depends on (seed, epoch) alone; a stream has an order of its own. Where images
    have several sizes, the images that a batch may hold have an order of their own for each level (`ShuffledImages`).

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
    join : callable, optional
        (plan, list of images (C, h, w) of several sizes) -> one tensor; for data with `levels`.
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
        join: Callable[[AnyPlan, list[torch.Tensor]], torch.Tensor] | None = None,
    ) -> None:
        self._join = join
        self._config, self._dataset, self._plans, self._device = config, dataset, plans, device
        self._rank, self._world_size = rank, world_size
        self._loading: deque[AnyPlan] = deque()  # planned, with images still under way
        self._items = iter(self._open_loader(start))

    def __next__(self) -> Loaded[AnyPlan]:
        start = time.perf_counter()
        item = next(self._items)
        seconds_waited = time.perf_counter() - start
        plan = self._loading.popleft() if self._loading else next(self._plans)
        return Loaded(plan, self._on_device(plan, item["image"]), item.get("label"), seconds_waited)

    def mirrored(self, x_0: torch.Tensor, uniforms: np.ndarray) -> torch.Tensor:
        """With --random_flip, about half of the images left to right; `uniforms`: a number in [0, 1) for each."""
        if not self._config.random_flip:
            return x_0
        flipped = to_device(torch.from_numpy(uniforms < 0.5), self._device).view(-1, 1, 1, 1)
        return torch.where(flipped, x_0.flip(-1), x_0)

    def _on_device(self, plan: AnyPlan, images: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
        if isinstance(images, torch.Tensor):
            return to_device(images, self._device)
        assert self._join is not None  # else the data have one size
        return self._join(plan, [to_device(image, self._device) for image in images])

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
        indices = planned_indices(self._plans, self._loading, orders(self._dataset, self._config.seed))
        if self._dataset.levels is not None:
            loading["collate_fn"] = collate_sizes
        return DataLoader(self._dataset, batch_sampler=indices, **loading)


def own_normals(words: np.ndarray, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Standard normals (B, *shape), float32 also under autocast, each image's from a 64-bit word of its own."""
    noise = torch.empty(len(words), *shape, device=generator.device)
    for image, seed in zip(noise, (words >> np.uint64(1)).tolist()):
        image.normal_(generator=generator.manual_seed(seed))
    return noise


class ShuffledImages:
    """Some indices of a data set, in an endless order: every epoch is a permutation, by the seed and its number.

    Image number n of a run is the n-th of this order, so that any position is found at once. A batch that may hold
    only some of the images takes its numbers from the order of these: each is equally likely, and none comes twice
    within as many numbers as there are of them.

    Parameters
    ----------
    indices : np.ndarray
    seed : int
    """

    def __init__(self, indices: np.ndarray, seed: int) -> None:
        self._indices, self._seed = indices, seed
        self._epoch, self._order = -1, indices

    def __getitem__(self, number: int) -> int:
        epoch, place = divmod(number, len(self._indices))
        if epoch != self._epoch:
            permutation = numpy_generator(self._seed, "epoch", epoch).permutation(len(self._indices))
            self._epoch, self._order = epoch, self._indices[permutation]
        return int(self._order[place])


def orders(dataset: ImageDataset, seed: int) -> list[ShuffledImages]:
    """The order of the images that a batch may hold, by the finest level that it touches; one for images of a size."""
    if dataset.levels is None:
        return [ShuffledImages(np.arange(len(dataset)), seed)]
    levels = range(int(dataset.levels.max()) + 1)
    return [ShuffledImages(np.flatnonzero(dataset.levels <= level), seed) for level in levels]


def planned_indices(
    plans: Iterator[AnyPlan], loading: deque[AnyPlan], by_level: Sequence[ShuffledImages]
) -> Iterator[list[int]]:
    """The data set's indices of each batch. The loader asks ahead, so the plans wait in `loading` for their images."""
    for plan in plans:
        loading.append(plan)
        order = by_level[min(plan.finest_level, len(by_level) - 1)]
        yield [order[number] for number in plan.numbers]


def collate_sizes(items: list[Item]) -> dict[str, Any]:
    """A batch of images of several sizes, as a list; labels as usual."""
    batch: dict[str, Any] = {"image": [item["image"] for item in items]}
    return batch | ({"label": torch.tensor([item["label"] for item in items])} if "label" in items[0] else {})
