"""The last words of a run."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator

from ..commands.errors import printable
from ..data import ImageData
from ..data.conversions import conversion_notes
from .checkpoints import Progress
from .engine import summed
from .interruption import StopRequest
from .run_config import RunConfig
from .run_folder import what_is_written


def last_words(
    config: RunConfig, accelerator: Accelerator, dataset: ImageData, progress: Progress, stop: StopRequest
) -> list[str]:
    """What decoding has changed in the images, why the run ended, and what is there; all processes must call this."""
    counts = dataset.conversion_counts()
    counts = summed(accelerator, counts) if dataset.counts_own_reads else counts
    notes = [printable(f"note: {note}") for note in conversion_notes(counts, config.background)]
    how = f"Stopped by {stop.received or 'another process'}" if progress.step < config.total_steps else "Finished"
    written = ", ".join(what_is_written(Path(config.out)))
    return [*notes, f"{how} after {progress.step} steps: {config.out}/ holds {written}."]
