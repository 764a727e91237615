"""Saving a run: a checkpoint and the pipeline, unless the weights have exploded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from ..commands.errors import TrainingStopped, is_disk_full
from ..publishing.saving import save_pipeline
from .checkpoints import TrainState, gather_tensors, save_checkpoint
from .release import Release
from .run_config import RunConfig
from .run_folder import what_is_safe
from .stored_averages import store_averages

EXPLOSION = 100
"""Weights whose norm grew by more than this factor since the last save are not saved: no training does that."""


class RunSaver:
    """Writes checkpoints and pipelines; all processes gather, the main one writes.

    Parameters
    ----------
    config : RunConfig
    accelerator : Accelerator
    state : TrainState
    release : callable
        What is published: see `release`.
    data : dict
        Provenance of the data.
    changes : list of dict
        Settings that changed when the run was resumed.
    """

    def __init__(
        self,
        config: RunConfig,
        accelerator: Accelerator,
        state: TrainState,
        release: Release,
        data: dict[str, Any],
        changes: list[dict[str, Any]],
    ) -> None:
        self._config, self._accelerator, self._state, self._release = config, accelerator, state, release
        self._data, self._changes = data, changes
        self._started = time.perf_counter() - 3600 * state.progress.hours
        self._norm, self._norm_step = norm_of(dict(state.ema.networks[0].state_dict())), state.progress.step

    def save(self) -> None:
        """Write a checkpoint, then the pipeline.

        Raises
        ------
        TrainingStopped
            When the weights have exploded, on all processes; when the disk is full.
        """
        config, progress = self._config, self._state.progress
        progress.hours = (time.perf_counter() - self._started) / 3600
        tensors = gather_tensors(self._state)
        self._check_norm(norm_of(tensors[self._state.network_file]))
        if not self._accelerator.is_main_process:
            return
        store_averages(self._state.ema, Path(config.out), progress.step)  # before the checkpoint, which may be the end
        described = self._state.describe(asdict(config), self._data, self._changes)
        limits = config.checkpoints_total_limit, config.milestone_every
        save_checkpoint(tensors, described, Path(config.out) / "checkpoints", *limits)
        self.save_pipeline()

    def save_pipeline(self) -> None:
        """Write the pipeline alone: after a resume it may be missing, or older than the checkpoint."""
        if self._accelerator.is_main_process:
            pipeline, card = self._release()
            save_pipeline(pipeline, Path(self._config.out), card)

    def _check_norm(self, norm: float) -> None:
        step = self._state.progress.step
        if not norm <= EXPLOSION * self._norm:
            raise TrainingStopped(
                f"The weights have exploded: their norm is {norm:.3g} at step {step} and was {self._norm:.3g} at step "
                f"{self._norm_step}. They are not saved. {what_is_safe(Path(self._config.out))}: continue with "
                "--resume and a lower --learning_rate, or with --max_grad_norm 1."
            )
        self._norm, self._norm_step = norm, step


@contextmanager
def stop_when_the_disk_is_full(out: Path) -> Iterator[None]:
    """Turn the error into one line that says what is safe, wherever it happened.

    A tracker writes in a thread of its own, whose traceback would be shown: the error reaches the main thread, too.
    """
    others = threading.excepthook
    threading.excepthook = lambda args: None if is_disk_full(args.exc_value) else others(args)  # type: ignore[arg-type]
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        where = f" for {error.filename}" if isinstance(error, OSError) and error.filename else ""
        raise TrainingStopped(
            f"There is no space{where} ({error}). {what_is_safe(out)}: free some space and continue with --resume."
        ) from error
    finally:
        threading.excepthook = others


def norm_of(tensors: dict[str, torch.Tensor]) -> float:
    """The Euclidean norm of all tensors together."""
    return float(torch.linalg.vector_norm(torch.stack([tensor.float().norm() for tensor in tensors.values()])))
