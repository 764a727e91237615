"""What the comparison shows: a table, distances against cost, and a picture with a row of images per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..commands.drawing import pyplot
from ..commands.files import whole_file, write_text
from .comparison import ROW, ComparisonConfig

COLUMNS = {
    "frechet_pixels": "Frechet, pixels",
    "sliced_wasserstein": "sliced Wasserstein",
    "classifier": "classifier",
    "gflops_per_step": "GFLOPs per step",
    "training_minutes": "training minutes",
    "seconds_per_image": "seconds per image",
}
"""Columns of the table, in order; one that no model has is left out."""


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    columns = [column for column in COLUMNS if any(column in row for row in rows)]
    lines = ["| | " + " | ".join(COLUMNS[column] for column in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        lines.append(f"| {row['title']} | " + " | ".join(_cell(row, column) for column in columns) + " |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any], column: str) -> str:
    if column not in row:
        return ""
    if column == "frechet_pixels" and "frechet_standard_error" in row:
        return f"{row[column]:.2f} ± {row['frechet_standard_error']:.2f}"
    return f"{row[column]:.3g}"


def write_results(config: ComparisonConfig, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """comparison.md, comparison.png and samples.png in --out."""
    out = Path(config.out)
    paths = [out / name for name in ("comparison.md", "comparison.png", "samples.png")]
    write_text(paths[0], table(rows) + "\n")
    with whole_file(paths[1]) as temporary:
        _plot(config, rows).savefig(temporary, dpi=120, format="png", bbox_inches="tight")
    with whole_file(paths[2]) as temporary:
        _picture(config, rows).savefig(temporary, dpi=120, format="png", bbox_inches="tight")
    return paths


def _plot(config: ComparisonConfig, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Both distances against the cost of a step, a named point per model."""
    figure, axes = pyplot().subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharex=True)
    for axis, metric in zip(axes, ("frechet_pixels", "sliced_wasserstein")):
        for number, row in enumerate(rows):
            errors = row.get("frechet_standard_error") if metric == "frechet_pixels" else None
            axis.errorbar(
                row["gflops_per_step"], row[metric], yerr=errors, fmt="osD^vP*"[number % 7], capsize=3, markersize=7,
                label=row["title"],
            )  # fmt: skip
        axis.set(xlabel="GFLOPs per image and step", ylabel=f"{COLUMNS[metric]} distance, lower is better")
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    figure.suptitle(
        f"{config.data}: {config.spent.steps} training steps each, {config.spent.sampling_steps} steps drawn"
    )
    return figure


def _picture(config: ComparisonConfig, rows: Sequence[Mapping[str, Any]]) -> Any:
    """A row of images per model, from the same seeds."""
    plt = pyplot()
    images = [plt.imread(Path(config.out) / row["name"] / ROW) for row in rows]
    height = 0.25 + 8 * sum(image.shape[0] / image.shape[1] for image in images)
    figure, axes = plt.subplots(len(rows), 1, figsize=(10, height), layout="constrained", squeeze=False)
    for axis, row, image in zip(axes[:, 0], rows, images):
        axis.imshow(image, cmap="gray")  # which counts for grey images alone
        axis.set_ylabel(row["title"], rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure
