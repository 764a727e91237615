"""The learning rate as a function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

LEARNING_RATE_SCHEDULES = ("constant", "cosine")


def learning_rate_at(step: int, base: float, schedule: str, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up over `warmup_steps`, then constant, or half a cosine down to zero at `total_steps`.

    Parameters
    ----------
    step : int
        Optimizer step, from 0.
    base : float
        The rate after the warm-up.
    schedule : {"constant", "cosine"}
    warmup_steps, total_steps : int
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    if schedule == "constant":
        return base
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
