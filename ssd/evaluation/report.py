"""A report: its content as data, and how it is written for people and for programs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..commands.files import whole_file, write_json, write_text
from ..sampling.pictures import from_uint8, image_grid
from .images import ReferencePictures
from .measure import Measured
from .plan import SHOWN_IMAGES
from .protocol import flatten


@dataclass(frozen=True)
class Report:
    """The content of report.json; nothing in it depends on time, so that the same run gives the same report.

    Parameters
    ----------
    metrics : dict
        Name -> number, or a list of numbers.
    protocol : dict
        What other reports must share to be comparable; see `protocol.make_protocol`.
    samples : dict
        Provenance of the generated images, with a hash of their pixels.
    settings : dict
        Of the command.
    neighbours : list of dict
        `sample`, the number of a generated image, `reference`, that of its nearest image, and their `distance`.
    warnings : list of str
    versions : dict
        Package -> version.
    commands : list of str
        What reproduces the report.
    baseline : dict, optional
        `path` and `metrics` of another report by the same protocol.
    """

    metrics: dict[str, Any]
    protocol: dict[str, Any]
    samples: dict[str, Any]
    settings: dict[str, Any]
    neighbours: list[dict[str, Any]]
    warnings: list[str]
    versions: dict[str, str]
    commands: list[str]
    baseline: dict[str, Any] | None = None


def list_neighbours(neighbours: Sequence[tuple[float, int]]) -> list[dict[str, Any]]:
    """`Measured.neighbours` as a report has them."""
    return [{"sample": i, "reference": number, "distance": distance} for i, (distance, number) in enumerate(neighbours)]


def report_pictures(
    generated: Measured, neighbours: Sequence[tuple[float, int]], reference: ReferencePictures | None
) -> dict[str, np.ndarray]:
    """First samples, and the first of them above their nearest reference images: name -> (N, H, W, C) uint8."""
    shown = {"samples": np.stack([generated.pixels[i] for i in range(min(SHOWN_IMAGES, generated.count))])}
    if neighbours and reference is not None:
        nearest = [reference[number] for _, number in neighbours]
        shown["neighbours"] = np.stack([generated.pixels[i] for i in range(len(nearest))] + nearest)
    return shown


def write_report(report: Report, pictures: Mapping[str, np.ndarray], folder: Path) -> list[Path]:
    """Write report.json, report.md and the pictures; returns the first two."""
    for name, array in pictures.items():
        images = from_uint8(array)
        with whole_file(folder / f"{name}.png") as temporary:
            image_grid(images, len(array) // 2 if name == "neighbours" else None).save(temporary)
    write_json(folder / "report.json", asdict(report))
    write_text(folder / "report.md", markdown(report, pictures))
    return [folder / "report.json", folder / "report.md"]


def markdown(report: Report, pictures: Collection[str]) -> str:
    """The report for reading; `pictures` are the names of those beside it."""
    labels = [extractor["extractor"] for extractor in report.protocol["extractors"]]
    parts = ["# Evaluation", ""]
    for label, names in metric_tables(report.metrics, labels).items():
        parts += [f"## {label}", "", *_table(report, names), ""]
    if report.warnings:
        parts += ["## Warnings", "", *[f"- {warning}" for warning in report.warnings], ""]
    parts += ["## Protocol", "", *[f"- {name}: {value}" for name, value in flatten(report.protocol).items()], ""]
    if "samples" in pictures:
        parts += ["## First samples", "", "![samples](samples.png)", ""]
    if "neighbours" in pictures:
        parts += [
            "## Nearest reference images",
            "",
            "Above the first samples, below each one's nearest image of the reference in the space of the features",
            f"'{labels[0]}'. A pair that is the same picture is memorised.",
            "",
            "![neighbours](neighbours.png)",
            "",
        ]
    parts += ["## To reproduce", "", "```", *report.commands, "```", ""]
    parts += ["## Versions", "", *[f"- {name} {value}" for name, value in report.versions.items()], ""]
    return "\n".join(parts)


def metric_tables(metrics: Mapping[str, Any], labels: Sequence[str]) -> dict[str, list[str]]:
    """Names of the metrics by extractor, since numbers of different extractors never share a table."""
    tables: dict[str, list[str]] = {f"Features: {label}": [] for label in labels}
    tables["Without features"] = []
    for name in metrics:
        owners = [label for label in labels if f"_{label}" in name]
        tables[f"Features: {max(owners, key=len)}" if owners else "Without features"].append(name)
    return {title: names for title, names in tables.items() if names}


def format_number(value: Any) -> str:
    """A number for reading: a distance that round-off made negative is shown as 0."""
    if not isinstance(value, float):
        return str(value)
    return f"{0.0 if -1e-3 < value < 0 else value:.4f}"


def _table(report: Report, names: Sequence[str]) -> list[str]:
    metrics, baseline = report.metrics, report.baseline
    if baseline is None:
        rows = [f"| {name} | {format_number(metrics[name])} |" for name in names]
        return ["| metric | value |", "|---|---|", *rows]
    rows = []
    for name in names:
        before = baseline["metrics"].get(name, "-")
        both = isinstance(before, float) and isinstance(metrics[name], float)
        change = f"{metrics[name] - before:+.4f}" if both else ""
        rows.append(f"| {name} | {format_number(metrics[name])} | {format_number(before)} | {change} |")
    return [f"| metric | this | {baseline['path']} | change |", "|---|---|---|---|", *rows]
