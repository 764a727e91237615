"""The study in words: report.md, and the lines that the command prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..denoisers.images import StudyImages
from .config import StudyConfig
from .plots import COSINES, GAP, PSNR, SAMPLES, by_size

MIDDLE = 1
"""Where the median is among the quantiles of a row."""

COLUMNS: dict[str, Callable[[dict[str, Any]], float]] = {
    "gap, dB": lambda row: row["gap"],
    "pair": lambda row: row["pair"][MIDDLE],
    "other seeds": lambda row: row["different_seeds"],
    "pair - other seeds": lambda row: row["pair"][MIDDLE] - row["different_seeds"],
    "nearest learned": lambda row: row["nearest"][MIDDLE],
    "function distance": lambda row: float(np.mean(row["function_distance"])),
    "CPU s": lambda row: row["cpu_seconds"],
}
"""What the table shows of a row."""

CAVEAT = (
    "Cosines of pixels overstate originality: a copy that is shifted, thinner or slightly deformed has a low cosine, "
    "and people would still call it a copy. A low cosine with the nearest learned image is no proof of a new image."
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per N: the mean over seeds, and the lowest and highest where there are several."""
    lines = [f"| N | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for size, group in by_size(rows).items():
        cells = [cell([ask(row) for row in group]) for ask in COLUMNS.values()]
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    """A mean and a range.

    Examples
    --------
    >>> cell([0.25]), cell([10.0, 20.0, 60.0])
    ('.250', '30.0 (10.0 .. 60.0)')
    """
    return mean(values) if len(values) == 1 else f"{mean(values)} ({number(min(values))} .. {number(max(values))})"


def number(value: float) -> str:
    """Three digits, more or less.

    Examples
    --------
    >>> number(23.456), number(-1.234), number(0.25), number(-0.0001)
    ('23.5', '-1.23', '.250', '.000')
    """
    value = round(value, 3) + 0.0  # of -0 makes 0
    if abs(value) >= 1:
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return f"{value:.3f}".replace("0.", ".")


def level_table(rows: Sequence[dict[str, Any]]) -> str:
    """Cosines of the last predictions at every level, for SSD models: from the same noise / from different noise."""
    sizes = list(rows[0]["levels"])
    lines = [f"| N | {' | '.join(f'{size}: pair / other seeds' for size in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    for count, group in by_size(rows).items():
        cells = []
        for size in sizes:
            pair, other = (mean([row["levels"][size][name] for row in group]) for name in ("pair", "different_seeds"))
            cells.append(f"{pair} / {other}")
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean(values: Sequence[float]) -> str:
    """The mean as it is shown."""
    return number(float(np.mean(values)))


def notes(config: StudyConfig, data: StudyImages, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What must be said beside the table."""
    found = [
        f"{len(data.images)} images of {config.data}, {data.dropped} near duplicates left out; "
        f"{config.seeds} {'seed' if config.seeds == 1 else 'seeds'}, {config.samples} samples per denoiser.",
        f"Random pairs of real images have the median cosine {mean([row['data_random_pairs'] for row in rows])}, "
        "a real image and the one of the other half that is most like it "
        f"{mean([row['data_closest_pairs'] for row in rows])}.",
    ]
    if "diverged" in rows[0]:
        lost = sum(sum(row["diverged"]) for row in rows)
        found.append(f"{lost} of {2 * config.samples * len(rows)} samples diverged (sigma > 2); they are counted in.")
    return found


def report_text(config: StudyConfig, data: StudyImages, rows: Sequence[dict[str, Any]]) -> str:
    """The text of report.md."""
    sigmas = ", ".join(f"{sigma:.2g}" for sigma in rows[0]["sigma"])
    parts = [
        f"# Generalisation of {config.denoiser} denoisers",
        "Two denoisers learn N images each that have none in common. Where they remember, their samples are their own "
        "images and differ; where they generalise, the same noise gives both the same new image.",
        table(rows),
        "Means over the seeds, with the lowest and the highest. gap: PSNR of learned images less that of others, mean "
        f"over the noise levels sigma = {sigmas}. pair: median centred cosine of the two denoisers' samples from the "
        "same noise; other seeds: from different noise, the baseline of pair. nearest learned: of the first denoiser's "
        "samples and their nearest training image. function distance: E|f1 - f2|^2 over the sum of both squared "
        "errors, mean over noise levels: 0 for one function, 1 for independent errors.",
        *notes(config, data, rows),
    ]
    if "levels" in rows[0]:
        parts += ["The last predictions at every level:", level_table(rows)]
    parts += [CAVEAT, "\n".join(f"![{name}]({name})" for name in (PSNR, SAMPLES, COSINES, GAP))]
    return "\n\n".join(parts) + "\n"
