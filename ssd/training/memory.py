"""When a step does not fit the memory: one line with the way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..commands.errors import TrainingStopped
from .run_config import RunConfig, images_per_batch
from .run_folder import what_is_safe

CPU_MEMORY_FULL = "can't allocate memory"
"""How PyTorch says it on a CPU, in a plain RuntimeError."""


@contextmanager
def stop_when_memory_is_full(config: RunConfig, num_processes: int) -> Iterator[None]:
    """Turn the error into one line that names the setting which saves memory without changing the training."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and CPU_MEMORY_FULL not in str(error):
            raise
        at_once = config.micro_batch_size or images_per_batch(config, num_processes)
        less = f"--micro_batch_size {at_once // 2}, which changes no step" if at_once > 1 else "a smaller network"
        raise TrainingStopped(
            f"The memory is full with {at_once} images at once. {what_is_safe(Path(config.out))}: continue with "
            f"--resume and {less}. --gradient_checkpointing saves memory, too."
        ) from error
