"""Which route a training batch takes, and which timesteps its images get.

A batch has one (input size, output size), so its timesteps are chosen together: t is drawn uniformly; if t is one that
the process requires, such as a level change, where the target is larger than the input, the whole batch uses that t;
otherwise every image draws its own t among the other timesteps of that level. So the marginal of t stays uniform. The
route depends on (seed, batch) alone, so all processes take the same one without communication.

Shape letter: B images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..operators.sizes import Size
from ..process.diffusion import DiffusionProcess
from ..seeding import numpy_generator


@dataclass(frozen=True)
class BatchRoute:
    """What the images of one batch share.

    Attributes
    ----------
    level : int
        The level of x_t, 0 the finest.
    output_size : (height, width)
        The size of the target.
    change : int or None
        The timestep, if it is a level change; None if every image draws its own within the level.
    weight : float
        Importance weight of the loss: 1 unless level changes are drawn more often than 1 / T.
    """

    level: int
    output_size: Size
    change: int | None
    weight: float


class BatchRoutes:
    """Draws routes and timesteps.

    Parameters
    ----------
    process : DiffusionProcess
    seed : int
    transition_probability : float, optional
        Probability that a batch is a level change, in (0, 1), shared equally by the changes. Default: the uniform
        marginal's, number of changes / T. (Ours: as published, a change is learnt from 0.1 % of the batches.)
    importance_weights : bool
        Weight the loss so that its expectation stays that of the uniform marginal.
    """

    def __init__(
        self,
        process: DiffusionProcess,
        seed: int,
        transition_probability: float | None = None,
        importance_weights: bool = True,
    ) -> None:
        self.process = process
        self.seed = seed
        changes = process.required_timesteps
        num_timesteps = process.num_timesteps
        natural = len(changes) / num_timesteps
        self._probability = transition_probability if changes and transition_probability is not None else natural
        self._weights = {True: 1.0, False: 1.0}  # of level changes, of all others
        if importance_weights and self._probability != natural:
            self._weights = {
                True: natural / self._probability,
                False: (1 - natural) / (1 - self._probability),
            }
        self._changes = np.array(changes, dtype=np.int64)
        self._others = np.array([t for t in range(num_timesteps) if t not in set(changes)])
        levels = range(len(process.resolution.resolutions))
        self._within_level = [np.array(process.shared_timesteps(level), dtype=np.int64) for level in levels]

    def route(self, batch: int) -> BatchRoute:
        """The route of training batch number `batch`, the same on every process."""
        generator = numpy_generator(self.seed, "route", batch)
        is_change = bool(generator.random() < self._probability)
        t = int(generator.choice(self._changes if is_change else self._others))
        return BatchRoute(
            level=self.process.level(t),
            output_size=self.process.prediction_size(t, t - 1),
            change=t if is_change else None,
            weight=self._weights[is_change],
        )

    def timesteps(self, route: BatchRoute, uniforms: np.ndarray) -> torch.Tensor:
        """Timesteps (B,), int64, on the CPU, from one number in [0, 1) per image (B,)."""
        if route.change is not None:
            return torch.full((len(uniforms),), route.change)
        allowed = self._within_level[route.level]
        return torch.from_numpy(allowed[(uniforms * len(allowed)).astype(np.int64)])
