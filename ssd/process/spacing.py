"""Which timesteps a chain of N steps visits: evenly in t, or evenly in what the state knows of its image.

Every spacing gives exactly N timesteps, descending, with T-1 and all that the process requires among them.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from .diffusion import DiffusionProcess
from .log_snr import effective_half_log_snrs


def linspace_timesteps(process: DiffusionProcess, number: int) -> list[int]:
    """Even steps in t; the nearest timesteps are moved onto the required ones.

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> linspace_timesteps(SSDScheduler(sample_size=16, num_levels=2).process, 5)
    [999, 750, 500, 250, 0]
    """
    last = process.num_timesteps - 1
    chosen = set(np.linspace(last, 0, number).round().astype(int).tolist())
    return _with_required(chosen, {last, *process.required_timesteps}, range(last + 1))


def logsnr_timesteps(process: DiffusionProcess, number: int) -> list[int]:
    """Even steps in l_eff(t), the log-SNR of what x_t knows (`ssd.process.log_snr`): few at low noise and many at high.

    Timesteps are whole numbers: where several of the even values share the nearest one, the widest gaps of the others
    are halved instead. 0 is among them where there is room. Ours (docs/maths.md, section 4).

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> logsnr_timesteps(SSDScheduler(sample_size=16, num_levels=2).process, 10)
    [999, 878, 750, 673, 484, 258, 92, 26, 5, 0]
    """
    known = effective_half_log_snrs(process)
    last = len(known) - 1
    even = np.linspace(known[last], known[0], number)
    chosen = {_nearest(known, value, 0, last) for value in even}
    _halve_widest_gaps(chosen, known, number)
    required = {last, *process.required_timesteps}
    return _with_required(chosen, required | {0} if number > len(required) else required, known)


SPACINGS: dict[str, Callable[[DiffusionProcess, int], list[int]]] = {
    "linspace": linspace_timesteps,
    "logsnr": logsnr_timesteps,
}


def _with_required(chosen: set[int], required: set[int], position: Sequence[float]) -> list[int]:
    """Move the nearest of the chosen timesteps onto each required one, and sort."""
    for t in sorted(required - chosen, reverse=True):
        chosen.remove(min(chosen - required, key=lambda other: abs(position[other] - position[t])))
        chosen.add(t)
    return sorted(chosen, reverse=True)


def _halve_widest_gaps(chosen: set[int], known: Sequence[float], number: int) -> None:
    """Add timesteps until there are `number`, each in the middle of the widest gap that has room."""
    gaps: list[tuple[float, int, int]] = []

    def add(low: int, high: int) -> None:
        if high - low > 1:
            heapq.heappush(gaps, (known[high] - known[low], low, high))  # negative: the widest comes first

    for low, high in pairwise(sorted(chosen)):
        add(low, high)
    while len(chosen) < number:
        _, low, high = heapq.heappop(gaps)
        middle = _nearest(known, (known[low] + known[high]) / 2, low + 1, high - 1)
        chosen.add(middle)
        add(low, middle)
        add(middle, high)


def _nearest(falling: Sequence[float], value: float, first: int, last: int) -> int:
    """The t in first..last whose value is nearest."""
    t = bisect_left(falling, -value, first, last, key=lambda x: -x)
    return t - 1 if t > first and abs(falling[t - 1] - value) <= abs(falling[t] - value) else t
