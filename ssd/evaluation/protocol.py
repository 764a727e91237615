"""How numbers were made, so that only numbers that were made in the same way are compared."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..commands.errors import UsageError
from .features.efficientnet import NAME as EFFICIENTNET
from .features.extractors import Extractor
from .measure import Measured
from .plan import ROUNDING

PACKAGES = (
    "torch",
    "torchvision",
    "diffusers",
    "accelerate",
    "numpy",
    "scipy",
    "pillow",
    "clean-fid",
    "efficientnet-lite-pytorch",
    "scale-space-diffusion",
)
FEW, VERY_FEW = 10_000, 2_048
NOT_COMPARED = {"reference.spec"}
"""Entries of the protocol that may differ between comparable reports: where the data lie on this machine."""


def make_protocol(
    samples: Mapping[str, Any], reference: Mapping[str, Any], extractors: Sequence[Extractor], num_kept: int, seed: int
) -> dict[str, Any]:
    """All that two runs must share for their numbers to be comparable.

    Parameters
    ----------
    samples, reference : mapping
        Provenance of both sides.
    extractors : sequence of Extractor
    num_kept : int
        The features of this many images were kept.
    seed : int
        The seed of random subsets and directions.
    """
    return {
        "reference": dict(reference),
        "extractors": [extractor.provenance for extractor in extractors],
        "num_generated": samples["num"],
        "rounding": ROUNDING,
        "labels": samples["labels"],
        "keep": num_kept,
        "seed_of_subsets": seed,
    }


def check_same_protocol(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str, complete: bool = True) -> None:
    """Raise a `UsageError` with both values where a baseline was measured differently.

    Parameters
    ----------
    ours, theirs : mapping
    path : str
        The file of the baseline.
    complete : bool
        False: what is missing in `ours` is not known yet.
    """
    flat_ours, flat_theirs = flatten(ours), flatten(theirs)
    names = flat_ours.keys() | flat_theirs.keys() if complete else flat_ours.keys()
    for name in sorted(names - NOT_COMPARED):
        one, other = flat_ours.get(name), flat_theirs.get(name)
        if one != other:
            raise UsageError(
                f"--baseline {path} was measured differently: {name} is {other!r} there and {one!r} here; "
                "numbers of different protocols cannot be compared."
            )


def read_baseline(path: str) -> dict[str, Any]:
    """A report.json of this command."""
    try:
        report = json.loads(Path(path).read_text())
    except OSError as error:
        raise UsageError(f"--baseline {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UsageError(f"--baseline {path} is not a JSON file ({error}).") from error
    if not isinstance(report, dict) or not {"metrics", "protocol"} <= report.keys():
        raise UsageError(f"--baseline {path} is not a report: give a report.json of this command.")
    return report


def count_warnings(measured: Measured) -> list[str]:
    """What to know about distances from this many images."""
    warnings = []
    for label, features in measured.features.items():
        count, num_features = features.count, len(features.mean)
        if label not in ("pixels", EFFICIENTNET) and count < FEW:
            amount = "far too few" if count < VERY_FEW else "few"
            warnings.append(
                f"{count} images are {amount} for the features '{label}': the distance is biased upwards below 10,000 "
                "and means little below 2,048; published FIDs use 50,000."
            )
        if count <= num_features:
            warnings.append(
                f"{count} images for {num_features} features ('{label}'): their covariance is singular, which biases "
                "the distance, and no confidence interval can be given: compare it with those of equally many images."
            )
    return warnings


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


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping; lists count from 0.

    Examples
    --------
    >>> flatten({"a": {"b": 1, "c": [2, 3]}})
    {'a.b': 1, 'a.c.0': 2, 'a.c.1': 3}
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flat |= flatten({str(i): item for i, item in enumerate(value)}, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
