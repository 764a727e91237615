"""Steps per level: the chain that they make, and what it costs, before anything is computed.

Nothing here touches the scheduler's own chain: costs are asked for while images are being drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffusers.models.modeling_utils import ModelMixin

from flexi_unet.flops import count_gflops

from ..operators.sizes import Size
from ..process.diffusion import DiffusionProcess
from ..process.log_snr import effective_half_log_snrs
from ..process.spacing import SPACINGS
from ..schedulers.base import ProcessScheduler

MOST_STEPS = 100
"""Of a level: what the dial goes up to."""


def timesteps_of(process: DiffusionProcess, level: int) -> range:
    """All timesteps of a level, ascending.

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> timesteps_of(SSDScheduler(sample_size=16, num_levels=2).process, 1)
    range(750, 1000)
    """
    starts = [*process.resolution.level_starts, process.num_timesteps]
    return range(max(0, starts[level]), starts[level + 1])


def step_limits(process: DiffusionProcess) -> list[tuple[int, int]]:
    """(fewest, most) steps of every level, finest first; the coarsest also needs the first timestep, T - 1."""
    allowed = [timesteps_of(process, level) for level in range(len(process.resolution.resolutions))]
    return [(max(1, len(_needed(process) & set(every))), min(MOST_STEPS, len(every))) for every in allowed]


def count_steps(process: DiffusionProcess, chain: Sequence[int]) -> list[int]:
    """How many timesteps of a chain every level has, finest first."""
    levels = [process.level(t) for t in chain]
    return [levels.count(level) for level in range(len(process.resolution.resolutions))]


def usual_steps(scheduler: ProcessScheduler, number: int) -> list[int]:
    """How the scheduler itself spreads `number` steps over the levels, within the limits of each."""
    counts = count_steps(scheduler.process, _own_chain(scheduler, number))
    return [min(max(count, low), high) for count, (low, high) in zip(counts, step_limits(scheduler.process))]


def chain_of(scheduler: ProcessScheduler, steps: Sequence[int]) -> list[int]:
    """The timesteps of a chain with so many steps per level, descending.

    The scheduler's own chain, where that has them: the page's picture then is that of `num_inference_steps`. Else every
    level is divided evenly, in what the scheduler's `timestep_spacing` measures.

    Parameters
    ----------
    scheduler : ProcessScheduler
    steps : sequence of int
        Of every level, finest first.

    Raises
    ------
    ValueError
        For steps that a level does not have.

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> chain_of(SSDScheduler(sample_size=16, num_levels=2), [3, 2])
    [999, 750, 372, 37, 0]
    """
    process, limits = scheduler.process, step_limits(scheduler.process)
    if len(steps) != len(limits) or any(not low <= n <= high for n, (low, high) in zip(steps, limits)):
        ranges = ", ".join(f"{low}..{high}" for low, high in limits)
        raise ValueError(f"The steps of the levels, finest first, must be in {ranges}, got {list(steps)}.")
    own = _own_chain(scheduler, sum(steps)) if sum(steps) > len(_needed(process)) else []
    if count_steps(process, own) == list(steps):
        return own
    position = _positions(scheduler)
    parts = [_evenly(process, level, number, position) for level, number in enumerate(steps)]
    return [t for part in reversed(parts) for t in part]


def _needed(process: DiffusionProcess) -> set[int]:
    return {process.num_timesteps - 1, *process.required_timesteps}


def _spacing(scheduler: ProcessScheduler) -> str:
    return str(scheduler.config.get("timestep_spacing", "linspace"))


def _own_chain(scheduler: ProcessScheduler, number: int) -> list[int]:
    return SPACINGS[_spacing(scheduler)](scheduler.process, number)


def _positions(scheduler: ProcessScheduler) -> Sequence[float]:
    """Of every timestep, where it stands on the falling scale that steps divide evenly."""
    process = scheduler.process
    return effective_half_log_snrs(process) if _spacing(scheduler) == "logsnr" else range(0, -process.num_timesteps, -1)


def _evenly(process: DiffusionProcess, level: int, number: int, position: Sequence[float]) -> list[int]:
    """`number` timesteps of a level, descending, from its first to its last; what the process needs is at its ends."""
    allowed = timesteps_of(process, level)
    low, high = allowed[0], allowed[-1]
    if number == 1:
        return [min(_needed(process) & set(allowed), default=high)]
    chosen: list[int] = []
    for i in range(number):
        wanted = position[high] + (position[low] - position[high]) * i / (number - 1)
        nearest = min(allowed, key=lambda t: abs(position[t] - wanted))
        most = chosen[-1] - 1 if chosen else high
        chosen.append(max(low + number - 1 - i, min(nearest, most)))  # one of its own for each
    return chosen


@dataclass(frozen=True)
class LevelCost:
    """What the steps of a level cost, for one image.

    Attributes
    ----------
    size : (height, width)
    steps, calls : int
        Timesteps, and calls of the network: guidance needs two per step.
    gflops, per_call : float, optional
        Of all of them, and of a single call that stays at this size; None where they cannot be counted.
    """

    size: Size
    steps: int
    calls: int
    gflops: float | None
    per_call: float | None


def level_costs(unet: ModelMixin, process: DiffusionProcess, chain: Sequence[int], guided: bool) -> list[LevelCost]:
    """What a chain costs, level by level, finest first; a step is counted at the level where it begins."""
    following = dict(zip(chain, [*chain[1:], -1]))
    costs = []
    for level, size in enumerate(process.resolution.resolutions):
        calls = [t for t in chain if process.level(t) == level for _ in range(1 + guided)]
        each = [gflops_of(unet, size, process.prediction_size(t, following[t])) for t in calls]
        counted = [value for value in each if value is not None]
        total = sum(counted) if len(counted) == len(calls) else None
        costs.append(LevelCost(size, len(calls) // (1 + guided), len(calls), total, gflops_of(unet, size, size)))
    return costs


def gflops_of(unet: Any, size: Size, output_size: Size) -> float | None:
    """`count_gflops`; None for a network of diffusers, which does not say how it treats other sizes."""
    return count_gflops(unet, size, output_size) if hasattr(unet, "working_sizes") else None
