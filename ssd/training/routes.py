"""Which route a training batch takes, and which timesteps its images get.

A batch has one (input size, output size), so its timesteps are chosen together: t is drawn uniformly; if t is one that
the process requires, such as a level change, where the target is larger than the input, the whole batch uses that t;
otherwise every image draws its own t among the other timesteps of that level. So the marginal of t stays uniform. The
route depends on (seed, batch) alone, so all processes take the same one without communication. Where the switches of
the resolution schedule move (`ssd.process.switches`), every batch first draws its own, in the same way.

Shape letter: B images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..operators.sizes import Size
from ..process.diffusion import DiffusionProcess
from ..process.scale_space import ScaleSpaceProcess
from ..seeding import numpy_generator


@dataclass(frozen=True)
class BatchRoute:
    """What the images of one batch share.

    Attributes
    ----------
    process : DiffusionProcess
        With the switches of this batch.
    level : int
        The level of x_t, 0 the finest.
    output_size : (height, width)
        The size of the target.
    target_level : int
        The level of the target: the finest one that the batch touches.
    change : int or None
        The timestep, if it is a level change; None if every image draws its own within the level.
    weight : float
        Importance weight of the loss: 1 unless level changes are drawn more often than 1 / T.
    """

    process: DiffusionProcess
    level: int
    output_size: Size
    target_level: int
    change: int | None
    weight: float


@dataclass(frozen=True)
class RouteShare:
    """How often a route is drawn.

    Attributes
    ----------
    size, output_size : (height, width)
        Of x_t and of the target.
    level : int
        The level of x_t.
    t : int
        One of its timesteps.
    share : float
        Of the batches.
    """

    size: Size
    output_size: Size
    level: int
    t: int
    share: float

    def __str__(self) -> str:
        growth = "" if self.size == self.output_size else f" -> {self.output_size[0]} x {self.output_size[1]}"
        return f"{self.size[0]} x {self.size[1]}{growth}"


def route_shares(process: DiffusionProcess, transition_probability: float | None = None) -> list[RouteShare]:
    """All routes as `BatchRoutes` draws them, finest first; moving switches count as if they stood still."""
    changes, steps = process.required_timesteps, process.num_timesteps
    share = len(changes) / steps if transition_probability is None else transition_probability * bool(changes)
    found: dict[tuple[Size, Size], RouteShare] = {}
    for t in range(steps):
        route = process.size(t), process.prediction_size(t, t - 1)
        probability = share / len(changes) if t in changes else (1 - share) / (steps - len(changes))
        so_far = found[route].share if route in found else 0.0
        found[route] = RouteShare(*route, process.level(t), t, so_far + probability)
    return list(found.values())


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
    bands : sequence of range
        From where each batch draws its switches, one range per switch; empty: they are those of the process.
    """

    def __init__(
        self,
        process: DiffusionProcess,
        seed: int,
        transition_probability: float | None = None,
        importance_weights: bool = True,
        bands: Sequence[range] = (),
    ) -> None:
        self.process = process
        self.seed = seed
        self._bands = bands
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

    def route(self, batch: int) -> BatchRoute:
        """The route of training batch number `batch`, the same on every process."""
        process = self._process_of(batch)
        changes = np.array(process.required_timesteps, dtype=np.int64)
        generator = numpy_generator(self.seed, "route", batch)
        is_change = bool(generator.random() < self._probability)
        t = int(generator.choice(changes if is_change else np.delete(np.arange(process.num_timesteps), changes)))
        return self.at(t, process)

    def at(self, t: int, process: DiffusionProcess | None = None) -> BatchRoute:
        """The route of a timestep; `process` has the switches of a batch where they move."""
        process = process or self.process
        is_change, size = t in process.required_timesteps, process.prediction_size(t, t - 1)
        return BatchRoute(
            process=process,
            level=process.level(t),
            output_size=size,
            target_level=process.resolution.level_of_size(size),
            change=t if is_change else None,
            weight=self._weights[is_change],
        )

    def timesteps(self, route: BatchRoute, uniforms: np.ndarray) -> torch.Tensor:
        """Timesteps (B,), int64, on the CPU, from one number in [0, 1) per image (B,)."""
        if route.change is not None:
            return torch.full((len(uniforms),), route.change)
        allowed = np.array(route.process.shared_timesteps(route.level), dtype=np.int64)
        return torch.from_numpy(allowed[(uniforms * len(allowed)).astype(np.int64)])

    def _process_of(self, batch: int) -> DiffusionProcess:
        """The process, with the switches of a batch where they move."""
        if not self._bands:
            return self.process
        assert isinstance(self.process, ScaleSpaceProcess)  # no other has bands
        generator = numpy_generator(self.seed, "switches", batch)
        return self.process.with_switches([int(generator.integers(band.start, band.stop)) for band in self._bands])
