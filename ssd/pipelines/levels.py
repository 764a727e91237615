"""Where a picture enters a chain: at which level, and at which of the chain's timesteps.

Shape letters: h w the size of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..data.sizes import size_text
from ..operators.sizes import Size
from ..scheduling_ssd import SSDScheduler


def level_to_grow_from(scheduler: SSDScheduler, size: Size, level: int | None, factor: float | None) -> int:
    """The level at which a picture is taken to grow: the one asked for, or the nearest to its number of pixels.

    Parameters
    ----------
    scheduler : SSDScheduler
    size : (height, width)
        (h, w).
    level : int, optional
        1 for the second finest, and so on.
    factor : float, optional
        How many times larger the result will be, instead of `level`.

    Raises
    ------
    ValueError
        For a level or a factor that there is not, for both at once, and for a model of one level.

    Examples
    --------
    >>> level_to_grow_from(SSDScheduler(sample_size=32, num_levels=3), (15, 15), None, None)
    1
    """
    sizes = scheduler.resolutions
    if len(sizes) == 1:
        raise ValueError("This model has one level, so that there is nothing to grow from: use a model with several.")
    if level is not None and factor is not None:
        raise ValueError(f"Give a level or a factor, not both, got {level} and {factor}.")
    if level is not None:
        return checked_level(scheduler, level, finest=1)
    if factor is not None:
        factors = [sizes[0][0] / other[0] for other in sizes]
        near = [j for j in range(1, len(sizes)) if math.isclose(factors[j], factor, rel_tol=0.05)]
        if not near:
            allowed = ", ".join(f"{value:g}" for value in factors[1:])
            raise ValueError(f"This model grows pictures by a factor of {allowed}, got {factor:g}: choose one of them.")
        return near[0]
    pixels = math.log(size[0] * size[1])
    return min(range(1, len(sizes)), key=lambda j: abs(math.log(math.prod(sizes[j])) - pixels))


def checked_level(scheduler: SSDScheduler, level: int, finest: int = 0) -> int:
    """`level`, if the model has it; else a ValueError that lists the levels with their sizes."""
    sizes = scheduler.resolutions
    if not finest <= level < len(sizes):
        allowed = ", ".join(f"{j} ({size_text(sizes[j])})" for j in range(finest, len(sizes)))
        raise ValueError(f"level must be one of {allowed or 'none: this model has one level'}, got {level}.")
    return level


def last_of_level(scheduler: SSDScheduler, chain: Sequence[int], level: int) -> int:
    """The place in the chain of the last timestep of a level, from which the image grows, or of the finest the last.

    Raises
    ------
    ValueError
        When the chain has no timestep there.
    """
    places = [place for place, t in enumerate(chain) if scheduler.process.level(t) == level]
    if not places:
        raise ValueError(
            f"These timesteps have none of level {level}, {size_text(scheduler.resolutions[level])}, at which the "
            f"picture enters: add {scheduler.process.resolution.level_starts[level]}."
        )
    return places[-1]


def place_of_strength(number: int, strength: float) -> int:
    """The place in a chain of `number` steps from which the share `strength` of it is left, as in diffusers.

    `number` itself, after the last step, for a share that is less than a step.

    Examples
    --------
    >>> place_of_strength(20, 0.8), place_of_strength(20, 0.0)
    (4, 20)
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be in [0, 1], got {strength}.")
    return number - min(number, int(number * strength + 1e-9))
