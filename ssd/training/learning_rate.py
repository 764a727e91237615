"""The learning rate over the steps of a run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.optimization import get_scheduler

from .run_config import RunConfig


def learning_rate_schedule(config: RunConfig, optimizer: torch.optim.Optimizer) -> Callable[[int], float]:
    """The learning rate of a step as a fraction of the full one: a function of the step, so that nothing is saved."""
    name: str = config.lr_scheduler
    if name == "constant" and config.lr_warmup_steps:
        name = "constant_with_warmup"
    lengths = {"num_warmup_steps": config.lr_warmup_steps, "num_training_steps": config.total_steps}
    return get_scheduler(name, optimizer, **lengths).lr_lambdas[0]
