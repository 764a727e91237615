"""The samplers of an `SSDScheduler` by name: what commands and documents call them."""

from __future__ import annotations

from typing import Any, Literal

from ..schedulers.base import ProcessScheduler
from ..scheduling_ssd import STEPS_PER_LEVEL, SSDScheduler

SamplerName = Literal["second_order", "paper"]

SAMPLERS: dict[SamplerName, dict[str, Any]] = {
    "second_order": {"solver_order": 2, "timestep_spacing": "logsnr"},
    "paper": {"solver_order": 1, "timestep_spacing": "linspace"},
}
"""Name -> settings of an `SSDScheduler`."""

STEPS = {1: 100, 2: 20}
"""Order of the solver -> how many steps are usual."""


def with_sampler(scheduler: ProcessScheduler, name: SamplerName | None = None, **settings: Any) -> ProcessScheduler:
    """The scheduler with another sampler, and with other settings that are not None; the process stays.

    Raises
    ------
    ValueError
        For settings that this scheduler does not have: others than `SSDScheduler` sample as the paper does.

    Examples
    --------
    >>> with_sampler(SSDScheduler(sample_size=16, num_levels=2), "paper").config.solver_order
    1
    """
    changes = {key: value for key, value in settings.items() if value is not None} | (SAMPLERS[name] if name else {})
    if isinstance(scheduler, SSDScheduler):
        return SSDScheduler.from_config(scheduler.config, **changes) if changes else scheduler
    if name not in (None, "paper") or len(changes) > len(SAMPLERS["paper"]):
        raise ValueError(
            f"A {type(scheduler).__name__} samples with first order, as the paper does: choose the sampler 'paper', or "
            "leave it out."
        )
    return scheduler


def sampler_name(scheduler: ProcessScheduler) -> SamplerName | None:
    """Which of `SAMPLERS` a scheduler has; None for another combination of their settings."""
    if not isinstance(scheduler, SSDScheduler):
        return "paper"
    for name, settings in SAMPLERS.items():
        if all(scheduler.config[key] == value for key, value in settings.items()):
            return name
    return None


def default_steps(scheduler: ProcessScheduler) -> int:
    """How many sampling steps are usual: few with second order, but some for every level."""
    levels, fewest = len(scheduler.resolutions), len(scheduler.process.required_timesteps) + 1
    order = scheduler.config.get("solver_order", 1)
    wanted = max(STEPS[order], STEPS_PER_LEVEL * levels if order == 2 else fewest)
    return min(wanted, len(scheduler))
