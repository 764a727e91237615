"""Which route a training step takes, and which timesteps its images get.

A batch has one (input size, output size), so its timesteps are chosen together: t is drawn uniformly; if t is a level
change, where the target is larger than the input, the whole batch uses that t; otherwise every image draws
its own t among the timesteps of that level that are no change. So the marginal of t stays uniform. The route depends
on (seed, step) alone: all processes take the same one without communication.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..resolution_schedule import ResolutionSchedule, Size
from ..seeding import numpy_generator


@dataclass(frozen=True)
class TimestepBatch:
    """Timesteps of one training step.

    Attributes
    ----------
    timesteps : torch.Tensor
        Shape (B,), int64, on the CPU; all of one level.
    level : int
        The level of x_t, 0 the finest.
    output_size : (height, width)
        The size of the target.
    """

    timesteps: torch.Tensor
    level: int
    output_size: Size


class RouteSampler:
    """Draws the `TimestepBatch` of a step as a function of (seed, step, rank).

    Parameters
    ----------
    schedule : ResolutionSchedule
    seed : int
    """

    def __init__(self, schedule: ResolutionSchedule, seed: int) -> None:
        self.schedule = schedule
        self.seed = seed
        changes = set(schedule.level_changes)
        self._within_level = [
            np.array([t for t, level in enumerate(schedule.levels) if level == index and t not in changes])
            for index in range(len(schedule.resolutions))
        ]

    def draw(self, step: int, batch_size: int, rank: int = 0) -> TimestepBatch:
        """Timesteps of `batch_size` images for training step `step` on process `rank`."""
        first = int(numpy_generator(self.seed, "route", step).integers(len(self.schedule.levels)))
        level = self.schedule.level(first)
        if first in self.schedule.level_changes:
            timesteps = np.full(batch_size, first)
        else:
            own = numpy_generator(self.seed, "timesteps", step, rank)
            timesteps = own.choice(self._within_level[level], size=batch_size)
        return TimestepBatch(torch.from_numpy(timesteps), level, self.schedule.size(first - 1))
