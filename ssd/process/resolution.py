"""Resolution schedules r(t): which resolution a timestep lives at. Timesteps t = 0..T-1; -1 is the clean image.

With tau = t / (T - 1) a curve u(tau) rises from 0 to 1, and the level is min(floor(u n), n - 1), 0 the finest
(arXiv:2603.08709, figure 5). The four curves are the published ones.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..operators.sizes import Size


def equal(tau: float, gamma: float) -> float:
    """u = tau: every level has the same number of timesteps (`gamma` has no effect)."""
    return tau


def convex_decay(tau: float, gamma: float) -> float:
    """u = 1 - (1 - tau)^gamma; gamma < 1 keeps the fine levels longest (the paper's choice: 0.5)."""
    return 1 - (1 - tau) ** gamma


def _smooth_power(d: float, gamma: float) -> float:
    """S(1/2 + p) - 1/2 for p = sign(d) |d|^gamma and the smoothstep S(x) = 3 x^2 - 2 x^3; odd in d."""
    p = math.copysign(abs(d) ** gamma, d)
    return 1.5 * p - 2 * p**3


def tanh_like(tau: float, gamma: float) -> float:
    """Steep at both ends, flat in the middle: the middle levels last longest."""
    return 0.5 + 0.5 * _smooth_power(tau - 0.5, gamma) / _smooth_power(0.5, gamma)


def sigmoid_like(tau: float, gamma: float) -> float:
    """The inverse function of `tanh_like`: the finest and coarsest levels last longest.

    3 p - 4 p^3 = 2 q has the closed-form solution p = sin(asin(2 q) / 3).
    """
    q = (2 * tau - 1) * _smooth_power(0.5, gamma)
    p = math.sin(math.asin(2 * q) / 3)
    return 0.5 + math.copysign(abs(p) ** (1 / gamma), p)


CURVES: dict[str, Callable[[float, float], float]] = {
    curve.__name__: curve for curve in (equal, convex_decay, sigmoid_like, tanh_like)
}

_NEEDS_GAMMA_FROM_ONE = ("sigmoid_like", "tanh_like")  # else |d|^gamma leaves the range where S rises


def pyramid(sample_size: int | Sequence[int], num_levels: int) -> list[Size]:
    """Sizes of the levels, fine to coarse: R, R/2, ..., R/2^(n-1).

    Parameters
    ----------
    sample_size : int or (height, width)
        The full resolution in pixels.
    num_levels : int
        n, at least 1; both sides must be divisible by 2^(n-1).

    Raises
    ------
    ValueError
        When a side cannot be halved that often; the message names the largest number that works.

    Examples
    --------
    >>> pyramid(64, 3)
    [(64, 64), (32, 32), (16, 16)]
    """
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else tuple(sample_size)
    if height < 1 or width < 1:
        raise ValueError(f"sample_size must be positive, got {sample_size}.")
    if num_levels < 1:
        raise ValueError(f"num_levels must be at least 1, got {num_levels}.")
    halvings = (math.gcd(height, width) & -math.gcd(height, width)).bit_length() - 1
    if num_levels - 1 > halvings:
        raise ValueError(
            f"num_levels={num_levels} needs {num_levels - 1} halvings, but {height} x {width} pixels can be "
            f"halved {halvings} times: use at most {halvings + 1} levels."
        )
    return [(height >> level, width >> level) for level in range(num_levels)]


@dataclass(frozen=True)
class ResolutionSchedule:
    """The level and the size of every timestep.

    Attributes
    ----------
    resolutions : tuple of (height, width)
        Sizes of the levels, fine to coarse.
    levels : tuple of int
        Level of every timestep t = 0..T-1 (0 the finest), never decreasing.
    """

    resolutions: tuple[Size, ...]
    levels: tuple[int, ...]

    @classmethod
    def from_curve(
        cls, resolutions: Sequence[Size], num_timesteps: int, name: str = "convex_decay", gamma: float = 0.5
    ) -> ResolutionSchedule:
        """A schedule by one of the curves in `CURVES`; `gamma` > 0, for sigmoid_like and tanh_like >= 1."""
        if name not in CURVES:
            raise ValueError(f"Unknown resolution schedule {name!r}; choose one of {', '.join(CURVES)}.")
        if gamma <= 0:
            raise ValueError(f"resolution_gamma must be positive, got {gamma}.")
        if name in _NEEDS_GAMMA_FROM_ONE and gamma < 1:
            raise ValueError(
                f"{name} needs resolution_gamma >= 1 (its curve would not rise everywhere), got {gamma}; "
                "the published values are 2 and 3."
            )
        n, last = len(resolutions), max(num_timesteps - 1, 1)
        levels = tuple(min(int(CURVES[name](t / last, gamma) * n), n - 1) for t in range(num_timesteps))
        return cls(tuple(resolutions), levels)

    @classmethod
    def from_switches(
        cls, resolutions: Sequence[Size], num_timesteps: int, switches: Sequence[int]
    ) -> ResolutionSchedule:
        """An explicit schedule: `switches` holds the first timestep of each coarser level, ascending."""
        if len(switches) != len(resolutions) - 1 or list(switches) != sorted(set(switches)):
            raise ValueError(
                f"{len(resolutions)} levels need {len(resolutions) - 1} ascending switch timesteps, "
                f"got {list(switches)}."
            )
        if any(not 0 < switch < num_timesteps for switch in switches):
            raise ValueError(f"Switch timesteps must lie in 1..{num_timesteps - 1}, got {list(switches)}.")
        levels = tuple(bisect_right(switches, t) for t in range(num_timesteps))
        return cls(tuple(resolutions), levels)

    def level(self, t: int) -> int:
        """Level of timestep `t` in -1..T-1; the clean image, t = -1, has level 0."""
        return 0 if t == -1 else self.levels[t]

    def size(self, t: int) -> Size:
        """(height, width) of the state x_t, t in -1..T-1."""
        return self.resolutions[self.level(t)]

    def level_of_size(self, size: Size) -> int:
        """The level whose states have this size.

        Examples
        --------
        >>> ResolutionSchedule.from_switches([(8, 8), (4, 4)], 10, [5]).level_of_size((4, 4))
        1
        """
        if tuple(size) not in self.resolutions:
            raise ValueError(f"No level has images of {size[0]} x {size[1]}, only of {list(self.resolutions)}.")
        return self.resolutions.index(tuple(size))

    def cost(self, chain: Sequence[int]) -> float:
        """Pixels that a network predicts in a chain, in steps at full resolution.

        Parameters
        ----------
        chain : sequence of int
            Timesteps, descending; the step from the last one to the clean image is added.

        Examples
        --------
        >>> ResolutionSchedule.from_switches([(8, 8), (4, 4)], 10, [5]).cost([9, 5, 0])
        2.25
        """
        pixels = [math.prod(size) for size in self.resolutions]
        return sum(pixels[self.level(s)] for s in [*chain[1:], -1]) / pixels[0]

    @cached_property
    def level_starts(self) -> tuple[int, ...]:
        """First timestep of every level, finest first; -1, the clean image, for the finest."""
        return (-1, *(bisect_left(self.levels, level) for level in range(1, len(self.resolutions))))

    @cached_property
    def level_changes(self) -> tuple[int, ...]:
        """First timestep of every coarser level, ascending: the steps from which the image grows."""
        return tuple(t for t in range(1, len(self.levels)) if self.levels[t] != self.levels[t - 1])
