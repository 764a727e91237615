"""What `accelerate config` or a flag of the launcher says counts where no flag of the run says otherwise.

The launcher hands its settings on in environment variables, its defaults too: "no" and 1 say nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ..commands.errors import UsageError
from .run_config import RunConfig, images_per_batch

AnyConfig = TypeVar("AnyConfig", bound=RunConfig)


def with_launcher_settings(
    config: AnyConfig, environment: Mapping[str, str] = os.environ
) -> tuple[AnyConfig, list[str]]:
    """The settings with those of the launcher, and notes about which came from where.

    Precision becomes --mixed_precision, N accumulation steps become a --micro_batch_size of an N-th of the images, and
    the dynamo backend inductor becomes --compile.

    Raises
    ------
    UsageError
        For a precision or a backend that training does not have.
    """
    said = _of_launcher(config, environment)
    taken: dict[str, Any] = {}
    notes = []
    for name, (value, unset) in said.items():
        own = getattr(config, name)
        if own == unset:
            taken[name] = value
            notes.append(f"{name} {value}: from the launcher (accelerate config), since no flag says otherwise.")
        elif own != value:
            notes.append(f"{name} {own}: from this run's flags; the launcher (accelerate config) says {value}.")
    return (replace(config, **taken) if taken else config), notes


def _of_launcher(config: RunConfig, environment: Mapping[str, str]) -> dict[str, tuple[Any, Any]]:
    """Setting -> the launcher's value, and the value that stands for no flag."""
    said: dict[str, tuple[Any, Any]] = {}
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in ("no", "bf16", "fp16"):
        raise UsageError(f"The launcher's mixed_precision must be no, bf16 or fp16, got {precision}.")
    if precision != "no":
        said["mixed_precision"] = precision, "auto"
    steps = int(environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1"))
    if steps > 1:
        own = images_per_batch(config, int(environment.get("WORLD_SIZE", "1")))
        said["micro_batch_size"] = max(1, -(-own // steps)), None
    backend = environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend not in ("no", "inductor"):
        raise UsageError(f"The launcher's dynamo_backend must be no or inductor, which is --compile, got {backend}.")
    if backend == "inductor":
        said["compile"] = True, False
    return said
