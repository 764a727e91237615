"""What a run writes down: losses gathered on the device, and `log.csv` as one of accelerate's trackers."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, on_main_process

from ..commands.files import write_text
from .batches import Batch

logger = logging.getLogger("ssd")

OF_LEVELS = ("loss", "residual", "gradient_share")
"""Columns per level, such as loss_64x64."""

MORE_COLUMNS = ("learning_rate", "gradient_norm", "images_per_second", "loader_share", "bad_steps", "seconds")


@dataclass(frozen=True)
class LogRow:
    """What one line of the log says, the same on all processes.

    Attributes
    ----------
    values : dict of str to float
        loss, gradient_norm, images_per_second, loader_share (the part of the time spent waiting for images), bad_steps
        (skipped since the start of the process), seconds (likewise); and for every level that was drawn its loss, its
        residual (the error of the clean image, relative to that of the best linear estimate, see `clean_image_errors`)
        and its gradient_share (its part of the squared gradient norms: a level with a small one is starved, since Adam
        scales all steps alike).
    bad_in_a_row : int
        Skipped steps up to now without a good one between them.
    stop : bool
        Whether any process was asked to stop.
    """

    values: dict[str, float]
    bad_in_a_row: int
    stop: bool


class StepLog:
    """What the log of any model has: collects numbers without reading them, and reads all of them at once.

    Parameters
    ----------
    accelerator : Accelerator
    shape : tuple of int
        Of the model's own sums.
    """

    def __init__(self, accelerator: Accelerator, shape: tuple[int, ...]) -> None:
        self._accelerator = accelerator
        self._shape = shape
        self._start = time.perf_counter()
        self._reset()

    def add_images(self, number: int, seconds_waited: float) -> None:
        """Note the images that this process has seen in a batch, and how long it waited for them."""
        self._images += number * self._accelerator.num_processes
        self._waited += seconds_waited

    def add_norm(self, gradient_norm: torch.Tensor) -> None:
        """Note a finished optimizer step."""
        self._norm += gradient_norm
        self._steps += 1

    def read(self, guard_counts: torch.Tensor, stop: bool) -> tuple[list[float], dict[str, float], int, bool]:
        """The model's sums, `MORE_COLUMNS` but the learning rate, skipped steps in a row, and whether to stop.

        Means over all processes since the last call; it waits for the device.
        """
        stopping = torch.full_like(self._norm[None], float(stop))
        own = torch.cat([self._sums.flatten(), self._norm[None], guard_counts, stopping])
        *sums, norm, bad, in_a_row, stopping = self._accelerator.reduce(own, reduction="mean").tolist()
        now = time.perf_counter()
        values = {
            "gradient_norm": norm / max(1, self._steps),
            "images_per_second": self._images / (now - self._since),
            "loader_share": self._waited / (now - self._since),
            "bad_steps": bad,
            "seconds": now - self._start,
        }
        return sums, values, int(in_a_row), stopping > 0

    def _reset(self) -> None:
        device = self._accelerator.device
        self._sums = torch.zeros(self._shape, device=device)
        self._norm = torch.zeros((), device=device)
        self._steps = self._images = 0
        self._waited = 0.0
        self._since = time.perf_counter()


class TrainingLog(StepLog):
    """The log of Scale Space Diffusion, with what it says of every level.

    Parameters
    ----------
    accelerator : Accelerator
    level_names : list of str
        Such as "64x64", finest first.
    """

    def __init__(self, accelerator: Accelerator, level_names: list[str]) -> None:
        self._level_names = level_names
        super().__init__(accelerator, (len(OF_LEVELS), len(level_names)))

    def add_batch(self, batch: Batch, losses: torch.Tensor, residuals: torch.Tensor) -> None:
        """Note the losses and the normalised residuals of one batch, (B,) each; NaN where there are no residuals."""
        self._sums[0, batch.level] += losses.detach().mean()
        self._sums[1, batch.level] += residuals.detach().mean()
        self._batches[batch.level] += 1
        self.add_images(len(batch.numbers), batch.seconds_waited)

    def add_step(self, gradient_norm: torch.Tensor, level: int | None) -> None:
        """Note a finished optimizer step; `level` is that of all its batches, None where they were of several."""
        self.add_norm(gradient_norm)
        if level is not None:
            self._sums[2, level] += gradient_norm.square()

    def row(self, guard_counts: torch.Tensor, stop: bool) -> LogRow:
        """The means since the last row, over all processes; guard_counts: (2,), skipped steps in all and in a row."""
        of_levels, common, in_a_row, stopping = self.read(guard_counts, stop)
        count = len(self._level_names)
        losses, residuals, squares = (of_levels[i * count : (i + 1) * count] for i in range(len(OF_LEVELS)))
        values = {"loss": sum(losses) / max(1, sum(self._batches))}
        values |= self._per_batch("loss", losses) | self._per_batch("residual", residuals)
        if (whole := sum(squares)) > 0:
            values |= {f"gradient_share_{name}": part / whole for name, part in zip(self._level_names, squares)}
        self._reset()
        return LogRow(values | common, in_a_row, stopping)

    def _per_batch(self, column: str, sums: list[float]) -> dict[str, float]:
        """Means over the batches of every level that was drawn; what is not a number is left out."""
        counted = zip(self._level_names, sums, self._batches)
        return {f"{column}_{name}": total / count for name, total, count in counted if count and not math.isnan(total)}

    def _reset(self) -> None:
        super()._reset()
        self._batches = [0] * len(self._level_names)


class CsvTracker(GeneralTracker):
    """`log.csv`, a line per logged step, which any program reads.

    Parameters
    ----------
    path : pathlib.Path
    level_names : list of str
        Such as "64x64"; the columns are step, loss, `OF_LEVELS` of these, `own_columns`, and `MORE_COLUMNS`.
    last_step : int
        Where the run continues: lines of later steps, left by an interrupted process, are dropped.
    own_columns : sequence of str
        Of a model without levels.
    """

    name = "csv"
    requires_logging_directory = False

    def __init__(self, path: Path, level_names: list[str], last_step: int = 0, own_columns: Sequence[str] = ()) -> None:
        super().__init__()
        self.path = path
        of_levels = [f"{column}_{name}" for column in OF_LEVELS for name in level_names]
        self.columns = ["step", "loss", *of_levels, *own_columns, *MORE_COLUMNS]
        self._last_step = last_step

    @property
    def tracker(self) -> Path:
        """The file."""
        return self.path

    @on_main_process
    def start(self) -> None:
        """Write the header, and the lines that stay. What is not a log is kept under another name."""
        try:
            kept = [row for row in read_log(self.path) if int(row["step"]) <= self._last_step]
        except ValueError as error:
            damaged = self.path.with_name("log_damaged.csv")
            os.replace(self.path, damaged)
            logger.warning("%s: it is kept as %s, and a new one begins.", error, damaged)
            kept = []
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        write_text(self.path, text.getvalue())

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Append one line."""
        row = {"step": step} | {name: f"{value:.6g}" for name, value in values.items()}
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row)


def read_log(path: Path) -> list[dict[str, str]]:
    """The lines of a log.csv; none where there is no file yet. A last line that a killed process cut is left out.

    Raises
    ------
    ValueError
        For a file that is not a log.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    header, *lines = text.splitlines(keepends=True) or [""]
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    rows = list(csv.DictReader([header, *lines]))
    if not header.startswith("step,loss") or not all(map(_is_whole, rows)):
        raise ValueError(f"{path} is not a log of training")
    return rows


def _is_whole(row: dict[Any, Any]) -> bool:
    """Whether a row has a value for every column, no more, and a step."""
    return None not in row and None not in row.values() and row["step"].isdecimal()
