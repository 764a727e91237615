"""Measure how wrong a network's predictions are, and keep it with the scheduler, for sampling and likelihood.

    python -m ssd.evaluation.calibrate --model runs/digits --data digits --num 500
    python -m ssd.evaluation.calibrate --model runs/celeba64 --data celeba:/data/celeba --split valid

Use images that the network has not learned from, if there are any: of its own it knows more. The numbers go into
scheduler/scheduler_config.json, as `calibration`. Sampling uses them with --residual_covariance null_space or all, and
sample/eval_nll.py for a tighter bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.files import write_text
from ..commands.lock import hold_folder
from ..commands.parser import CommandParser
from ..operators.cosine_bands import band_means, cosine_bands
from ..operators.cosine_filter import cosine_basis
from ..operators.spectral import SpectralForm
from ..pipelines.hub import is_hub_id
from ..pipelines.saved_files import is_checkpoint
from ..pipelines.staging import complete_pipeline
from ..process.log_snr import half_log_snr
from ..process.residuals import AtChange, ResidualTable
from ..process.scale_space import ScaleSpaceProcess
from ..publishing.ddpm import is_ddpm
from ..publishing.saving import load_pipeline
from ..scheduling_ssd import SSDScheduler
from ..seeding import torch_generator
from .denoising import Denoiser
from .given_images import GivenImages, NumberedImages

TIMESTEPS_PER_LEVEL = 20


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.evaluation.calibrate", description=__doc__)
        parser.add_class_arguments(GivenImages)
        config = GivenImages(**parser.parse_args(arguments).as_dict())
        if is_hub_id(config.model):
            raise UsageError(f"--model {config.model} is on the Hub; the table is written into a folder: give one.")
        if is_ddpm(Path(config.model)) or is_checkpoint(Path(config.model)):
            raise UsageError(f"--model {config.model} has no scheduler of its own: give the folder of an SSDPipeline.")
        pipeline = load_pipeline(config.model, config.device)
        denoiser = Denoiser(pipeline)
        images = config.open(pipeline)
        with hold_folder(config.model):
            table = calibrate(denoiser, images, config.seed)
            scheduler = SSDScheduler.from_config(denoiser.scheduler.config, calibration=table.to_config())
            path = complete_pipeline(Path(config.model)) / "scheduler" / "scheduler_config.json"
            write_text(path, scheduler.to_json_string())
    print(format_table(table))  # noqa: T201
    print(f"wrote {path}, measured on {len(images)} images")  # noqa: T201


def calibrate(denoiser: Denoiser, images: NumberedImages, seed: int = 0) -> ResidualTable:
    """Measure the residuals of every level, at `TIMESTEPS_PER_LEVEL` timesteps, and of every change of the level.

    Parameters
    ----------
    denoiser : Denoiser
    images : NumberedImages
    seed : int
        Of the noise.
    """
    process = denoiser.process
    grids = [timesteps_of(process, level) for level in range(len(process.resolution.resolutions))]
    todo = [t for grid in grids for t in grid] + list(process.required_timesteps)
    sums = {t: _ErrorSums(process, t) for t in todo}
    with tqdm(total=len(images) * len(todo), desc="calibration", unit=" predictions") as progress:
        for batch in images:
            for t in todo:
                generators = [torch_generator(seed, "calibration noise", t, number) for number in batch.numbers]
                sums[t].add(denoiser.error(batch.x_0, t - 1, t, generators, batch.labels))
                progress.update(len(batch.x_0))
    within = [{t: sums[t].bands() for t in grid} for grid in grids]
    return ResidualTable(process, within, {t: sums[t].at_change() for t in process.required_timesteps})


def timesteps_of(process: ScaleSpaceProcess, level: int, number: int = TIMESTEPS_PER_LEVEL) -> list[int]:
    """At most `number` timesteps within a level, about evenly in the log-SNR, with its ends."""
    shared = process.shared_timesteps(level)
    known = np.array([half_log_snr(process, t) for t in shared])
    even = np.linspace(known[0], known[-1], number)
    return sorted({shared[int(np.abs(known - value).argmin())] for value in even})


class _ErrorSums:
    """Squares of the errors of one timestep, added up per direction."""

    def __init__(self, process: ScaleSpaceProcess, t: int) -> None:
        self._size = process.size(t - 1)
        self._basis = cosine_basis(self._size)
        spectral = process.operator(t - 1, t).spectral
        self._spectral = spectral if isinstance(spectral, SpectralForm) else None
        self._changes = t in process.required_timesteps
        self._cosines: torch.Tensor | float = 0.0
        self._rows: torch.Tensor | float = 0.0
        self._count = 0

    def add(self, error: torch.Tensor) -> None:
        """(B, C, h, w)."""
        error = error.double().cpu()
        self._count += error.shape[0] * error.shape[1]
        self._cosines = self._cosines + self._basis.apply_transposed(error).square().sum(dim=(0, 1))
        if self._changes and self._spectral is not None:
            self._rows = self._rows + self._spectral.v.apply_transposed(error).square().sum(dim=(0, 1))

    def bands(self) -> torch.Tensor:
        """The mean square per band of cosine frequencies; 0 for an empty band."""
        return _per_band(torch.as_tensor(self._cosines) / self._count)

    def at_change(self) -> AtChange:
        """The mean squares in the directions of a change."""
        rows = torch.as_tensor(self._rows) / self._count
        outside = torch.as_tensor(self._cosines).sum() / self._count - rows.sum()
        directions = self._size[0] * self._size[1] - rows.numel()
        return AtChange(self.bands(), _per_band(rows), outside / max(directions, 1))


def _per_band(squares: torch.Tensor) -> torch.Tensor:
    size = (squares.shape[0], squares.shape[1])
    return torch.nan_to_num(band_means(squares, cosine_bands(size)))


def format_table(table: ResidualTable) -> str:
    """Root mean square errors, for people: the ends of every level, and the changes."""

    def line(name: str, bands: torch.Tensor) -> str:
        return f"{name:>22} " + " ".join(f"{float(r) ** 0.5:7.4f}" for r in bands)

    lines = ["root mean square error per band of frequencies, the mean brightness first"]
    for level, row in reversed(list(enumerate(table.within))):
        lines += [line(f"level {level}, t = {t}", row[t]) for t in (max(row), min(row))]
        changes: Mapping[int, AtChange] = {t: c for t, c in table.changes.items() if table.process.level(t) == level}
        lines += [line(f"change at t = {t}", change.bands) for t, change in changes.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
