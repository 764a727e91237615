"""The order of training images: an endless shuffle that can start at any step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from ..seeding import numpy_generator


class EndlessShuffle(Sampler[int]):
    """Indices for one process: every epoch a new permutation that depends on (seed, epoch) alone.

    The images of step k are positions k B W .. (k + 1) B W - 1 of the endless sequence, split over the W
    processes, so that resuming at a step costs nothing.

    Parameters
    ----------
    length : int
        Number of images in the data set.
    batch_size : int
        B, images per process and step.
    seed : int
    first_step : int
        The step at which the sequence starts.
    rank, world_size : int
        This process and their number, W.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, first_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.first_step = first_step
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[int]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        step = self.first_step
        while True:
            start = (step * self.world_size + self.rank) * self.batch_size
            for position in range(start, start + self.batch_size):
                if position // self.length != epoch:
                    epoch = position // self.length
                    order = numpy_generator(self.seed, "epoch", epoch).permutation(self.length)
                yield int(order[position % self.length])
            step += 1
