"""What is said about the numbers: protocol, warnings, report.json, report.md, and a baseline beside them."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..commands.errors import UsageError
from ..sampling.pictures import image_grid
from .config import EvalConfig
from .features.extractors import Extractor
from .measure import Measured
from .reference import ROUNDING, DatasetReference, StatisticsReference
from .sampling import write_json, write_text
from .subjects import GRID_IMAGES

PACKAGES = (
    *("torch", "torchvision", "diffusers", "accelerate", "numpy", "scipy", "pillow", "clean-fid"),
    "scale-space-diffusion",
)
FEW, VERY_FEW = 10_000, 2_048
NOT_COMPARED = {"reference.spec"}
"""Entries of the protocol that may differ between comparable reports: where the data lie on this machine."""


def versions() -> dict[str, str]:
    """Of Python and of every package that a number could depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def command_line(num_processes: int) -> str:
    """The command that started this process, as one would type it."""
    launcher = f"accelerate launch --multi_gpu --num_processes {num_processes}" if num_processes > 1 else "python"
    return f"{launcher} {shlex.join(sys.argv)}"


def count_warnings(measured: Measured) -> list[str]:
    """What to know about distances from so many images."""
    warnings = []
    for label, features in measured.features.items():
        count, num_features = features.count, len(features.mean)
        if label != "pixels" and count < FEW:
            amount = "far too few" if count < VERY_FEW else "few"
            warnings.append(
                f"{count} images are {amount} for the features '{label}': the distance is biased upwards below 10,000 "
                "and means little below 2,048; published FIDs use 50,000."
            )
        if count <= num_features:
            warnings.append(
                f"{count} images for {num_features} features ('{label}'): their covariance is singular, which biases "
                "the distance, and no confidence interval can be given."
            )
    return warnings


def make_protocol(
    config: EvalConfig, samples: Mapping[str, Any], reference: Mapping[str, Any], extractors: Sequence[Extractor]
) -> dict[str, Any]:
    """All that two runs must share for their numbers to be comparable."""
    return {
        "reference": dict(reference),
        "extractors": [extractor.provenance for extractor in extractors],
        "num_generated": samples["num"],
        "rounding": ROUNDING,
        "labels": samples["labels"],
        "keep": config.keep,
        "seed_of_subsets": config.seed,
    }


def build_report(
    config: EvalConfig,
    metrics: dict[str, Any],
    samples: dict[str, Any],
    reference: dict[str, Any],
    extractors: Sequence[Extractor],
    neighbours: Sequence[tuple[float, int]],
    warnings: Sequence[str],
    num_processes: int,
    baseline: dict[str, Any] | None,
) -> dict[str, Any]:
    """The content of report.json; nothing in it depends on time, so that the same run gives the same report.

    Raises
    ------
    UsageError
        When the baseline was measured by another protocol.
    """
    protocol = make_protocol(config, samples, reference, extractors)
    if baseline is not None:
        check_same_protocol(protocol, baseline["protocol"], str(config.baseline))
    return {
        "metrics": metrics,
        "protocol": protocol,
        "samples": samples,
        "settings": asdict(config),
        "neighbours": [
            {"sample": i, "reference": number, "distance": distance} for i, (distance, number) in enumerate(neighbours)
        ],
        "warnings": list(warnings),
        "versions": versions(),
        "commands": [command_line(num_processes)],
        "baseline": baseline and {"path": config.baseline, "metrics": baseline["metrics"]},
    }


def report_pictures(
    generated: Measured, neighbours: Sequence[tuple[float, int]], reference: DatasetReference | StatisticsReference
) -> dict[str, np.ndarray]:
    """First samples, and the first of them above their nearest reference images: name -> (N, H, W, 3) uint8."""
    shown = {"samples": np.stack([generated.pixels[i] for i in range(min(GRID_IMAGES, generated.count))])}
    if neighbours and isinstance(reference, DatasetReference):
        nearest = [reference.pictures[number] for _, number in neighbours]
        shown["neighbours"] = np.stack([generated.pixels[i] for i in range(len(nearest))] + nearest)
    return shown


def check_same_protocol(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str, complete: bool = True) -> None:
    """Raise a `UsageError` with both values where a baseline was measured in another way.

    Parameters
    ----------
    ours, theirs : mapping
    path : str
        Of the baseline.
    complete : bool
        False: what is missing in `ours` is not known yet.
    """
    flat_ours, flat_theirs = _flat(ours), _flat(theirs)
    names = flat_ours.keys() | flat_theirs.keys() if complete else flat_ours.keys()
    for name in sorted(names - NOT_COMPARED):
        one, other = flat_ours.get(name), flat_theirs.get(name)
        if one != other:
            raise UsageError(
                f"--baseline {path} was measured in another way: {name} is {other!r} there and {one!r} here; "
                "numbers of different protocols cannot be compared."
            )


def read_baseline(path: str) -> dict[str, Any]:
    """A report.json of this command."""
    try:
        report = json.loads(Path(path).read_text())
    except OSError as error:
        raise UsageError(f"--baseline {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UsageError(f"--baseline {path} is no JSON file ({error}).") from error
    if not isinstance(report, dict) or not {"metrics", "protocol"} <= report.keys():
        raise UsageError(f"--baseline {path} is no report: give a report.json of this command.")
    return report


def write_report(config: EvalConfig, report: dict[str, Any], pictures: Mapping[str, np.ndarray]) -> list[Path]:
    """Write report.json, report.md and the pictures, or the JSON file alone; returns what was written."""
    folder = config.report_folder
    if folder is None:
        write_json(Path(str(config.out)), report)
        return [Path(str(config.out))]
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in pictures.items():
        tensor = torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1
        image_grid(tensor, len(array) // 2 if name == "neighbours" else None).save(folder / f"{name}.png")
    write_json(folder / "report.json", report)
    write_text(folder / "report.md", markdown(report, list(pictures)))
    written = [folder / "report.json", folder / "report.md"]
    if config.model and not config.out:
        written.append(Path(config.model) / "metrics.json")
        write_json(written[-1], {"metrics": report["metrics"], "settings": report["settings"]})
    return written


def markdown(report: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """The report for reading."""
    protocol = report["protocol"]
    labels = [extractor["extractor"] for extractor in protocol["extractors"]]
    parts = ["# Evaluation", ""]
    for label, names in metric_tables(report["metrics"], labels).items():
        parts += [f"## {label}", "", *_table(report, names), ""]
    if report["warnings"]:
        parts += ["## Warnings", "", *[f"- {warning}" for warning in report["warnings"]], ""]
    parts += ["## Protocol", "", *[f"- {name}: {value}" for name, value in _flat(protocol).items()], ""]
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
    parts += ["## To reproduce", "", "```", *report["commands"], "```", ""]
    parts += ["## Versions", "", *[f"- {name} {value}" for name, value in report["versions"].items()], ""]
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


def _table(report: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    metrics, baseline = report["metrics"], report.get("baseline")
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


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists count from 0."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flat |= _flat({str(i): item for i, item in enumerate(value)}, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
