"""Which images a training batch holds: an endless shuffle that can start anywhere.

Images are numbered 0, 1, 2, .. in the order in which the run sees them. Everything random about an image (its flip,
timestep, noise, dropped label) depends on the seed and this number alone. So a run is the same whether it was
interrupted or not, and on one process or on several.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from ..seeding import numpy_generator
from .routes import RouteSampler


class BatchSizes:
    """Images per process of a batch, by level.

    Parameters
    ----------
    batch_size : int
        At the finest level.
    level_scale : float
        Every coarser level has this many times more (rounded), since it costs less; 1 is the same for all.
    """

    def __init__(self, batch_size: int, level_scale: float = 1.0) -> None:
        self.batch_size = batch_size
        self.level_scale = level_scale

    def at(self, level: int) -> int:
        """Images per process on `level`, 0 the finest."""
        return max(1, round(self.batch_size * self.level_scale**level))


class EndlessBatches(Sampler[list[int]]):
    """A batch sampler: data set indices of one process's batches, from batch `first_batch` on, without end.

    Every epoch is a new permutation that depends on (seed, epoch) alone. Batch k of all W processes together takes the
    next W B images of the sequence; process r the r-th part of them.

    Parameters
    ----------
    length : int
        Number of images in the data set.
    routes : RouteSampler
        Knows the level, and so the size, of every batch.
    sizes : BatchSizes
    seed : int
    first_batch, first_image : int
        Where the sequence starts: batches and images that were seen before.
    rank, world_size : int
        This process, and W.
    """

    def __init__(
        self,
        length: int,
        routes: RouteSampler,
        sizes: BatchSizes,
        seed: int,
        first_batch: int = 0,
        first_image: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.length = length
        self.routes = routes
        self.sizes = sizes
        self.seed = seed
        self.first_batch = first_batch
        self.first_image = first_image
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[int]]:
        batch, image = self.first_batch, self.first_image
        epoch, order = -1, np.empty(0, dtype=np.int64)
        while True:
            size = self.sizes.at(self.routes.route(batch).level)
            indices = []
            for position in range(image + self.rank * size, image + (self.rank + 1) * size):
                if position // self.length != epoch:
                    epoch = position // self.length
                    order = numpy_generator(self.seed, "epoch", epoch).permutation(self.length)
                indices.append(int(order[position % self.length]))
            yield indices
            batch += 1
            image += size * self.world_size
