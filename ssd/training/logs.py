"""What a run writes down: a CSV file that any program reads, and scalars for the trackers."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import torch

SPEED_COLUMNS = ("gradient_norm", "images_per_second", "loader_share", "bad_steps", "seconds")


class LossLog:
    """Collects losses per level and appends a line of means to `log.csv`.

    Columns: step, loss, one loss per level (finest first; empty where the level was not drawn), gradient_norm,
    images_per_second, loader_share (the part of the time spent waiting for images), bad_steps (since the start of the
    process), seconds (likewise).

    Parameters
    ----------
    path : pathlib.Path
    level_names : list of str
        Such as "loss_64x64", finest first.
    first_step : int
        Lines of later steps, left by an interrupted run, are dropped.
    """

    def __init__(self, path: Path, level_names: list[str], first_step: int = 0) -> None:
        self.path = path
        self.columns = ["step", "loss", *level_names, *SPEED_COLUMNS]
        self._level_names = level_names
        self.bad_steps = 0
        kept = self._rows_up_to(first_step)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(kept)
        self._start = time.perf_counter()
        self._reset()

    def add(self, level: int, loss: torch.Tensor, num_images: int) -> None:
        """Note the mean loss of one step on `level`; the tensor is read only when a line is written."""
        self._losses[level].append(loss.detach())
        self._images += num_images

    def add_step(self, gradient_norm: float, seconds_waited: float) -> None:
        """Note a finished optimizer step."""
        self._gradient_norms.append(gradient_norm)
        self._waited += seconds_waited

    def write(self, step: int) -> dict[str, float]:
        """Append one line for everything since the last; returns its numbers for the trackers."""
        now = time.perf_counter()
        row = {"loss": _mean([loss for losses in self._losses for loss in losses])}
        row |= {name: _mean(losses) for name, losses in zip(self._level_names, self._losses) if losses}
        row["gradient_norm"] = sum(self._gradient_norms) / max(1, len(self._gradient_norms))
        row["images_per_second"] = self._images / (now - self._since)
        row["loader_share"] = self._waited / (now - self._since)
        row["bad_steps"] = self.bad_steps
        row["seconds"] = now - self._start
        with self.path.open("a", newline="") as file:
            formatted = {name: f"{value:.6g}" for name, value in row.items()}
            csv.DictWriter(file, self.columns).writerow({"step": step, **formatted})
        self._reset()
        return row

    def _reset(self) -> None:
        self._losses: list[list[torch.Tensor]] = [[] for _ in self._level_names]
        self._gradient_norms: list[float] = []
        self._images = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    def _rows_up_to(self, step: int) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return [row for row in csv.DictReader(file) if int(row["step"]) <= step]


def _mean(losses: list[torch.Tensor]) -> float:
    return float(torch.stack(losses).mean())
