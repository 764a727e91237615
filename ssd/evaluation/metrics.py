"""All distances between two measured sets, by their names in a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..commands.errors import UsageError
from ..operators.sizes import Size
from .distances.frechet import frechet_distance, frechet_standard_error
from .distances.kid import kernel_distance
from .distances.precision_recall import precision_recall
from .distances.sliced_wasserstein import sliced_wasserstein
from .features.efficientnet import NAME, NUM_FEATURES
from .features.extractors import PIXEL_SIDE
from .measure import Measured
from .statistics import ReferenceFeatures

METRICS = ("fid", "kid", "swd", "pr", "levels", "bits_per_dim")
FULL_COUNT = 50_000
NETWORK_FEATURES = {"clean": 2048, "legacy_pytorch": 2048, NAME: NUM_FEATURES}


def parse_metrics(text: str) -> list[str]:
    """Split "fid,kid" into ["fid", "kid"]; raises a `UsageError` for an unknown or missing name."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        raise UsageError(f"--metrics {text!r}: use a comma-separated choice of {', '.join(METRICS)}.")
    return list(dict.fromkeys(names))


def distance_name(label: str, count: int) -> str:
    """How the Frechet distance is called: a FID only with Inception features, with the count when below 50,000."""
    if label not in ("clean", "legacy_pytorch"):
        return f"frechet_distance_{label}"
    if count >= FULL_COUNT:
        return f"fid_{label}"
    return f"fid{count // 1000}k_{label}" if count >= 1000 else f"fid{count}_{label}"


def all_metrics(
    metrics: Sequence[str],
    labels: Sequence[str],
    real: Measured,
    generated: Measured,
    levels: Mapping[Size, tuple[Measured, Measured]],
    seed: int = 0,
    channels: int = 3,
) -> dict[str, Any]:
    """Every number of a report.

    Parameters
    ----------
    metrics : sequence of str
        Some of `METRICS`; bits_per_dim is `ssd.evaluation.likelihood`'s.
    labels : sequence of str
        Labels of the extractors.
    real, generated : Measured
    levels : mapping
        (height, width) -> reference and predictions of one coarser level.
    seed : int
        The seed of random subsets and directions.
    channels : int
        Of the images.
    """
    numbers: dict[str, Any] = {}
    for label in labels:
        numbers |= compare(real.features[label], generated.features[label], label, metrics, seed)
    if "swd" in metrics:
        numbers |= compare_scales(real.features[labels[0]], generated.features[labels[0]], seed, channels)
    for (height, width), (coarse, predicted) in levels.items():
        for label in labels:
            found = _frechet(coarse.features[label], predicted.features[label], label)
            name = distance_name(label, predicted.count)
            numbers[f"{name}_at_{height}x{width}"] = found[name]
    return numbers | {"num_generated": generated.count, "num_reference": real.count}


def compare(
    real: ReferenceFeatures, generated: ReferenceFeatures, label: str, metrics: Sequence[str], seed: int = 0
) -> dict[str, float]:
    """The metrics of one extractor.

    Parameters
    ----------
    real, generated : ReferenceFeatures
    label : str
        The extractor's label; it ends the metrics' names.
    metrics : sequence of str
        Some of `METRICS`; those that do not belong to an extractor are not among the results.
    seed : int
        The seed of KID's subsets.
    """
    numbers: dict[str, float] = {}
    if "fid" in metrics:
        numbers |= _frechet(real, generated, label)
    if "kid" in metrics:
        numbers[f"kid_{label}"], numbers[f"kid_std_{label}"] = kernel_distance(*_kept(real, generated), seed)
    if "pr" in metrics:
        numbers[f"precision_{label}"], numbers[f"recall_{label}"] = precision_recall(*_kept(real, generated))
    return numbers


def compare_scales(
    real: ReferenceFeatures, generated: ReferenceFeatures, seed: int = 0, channels: int = 3
) -> dict[str, float]:
    """Sliced Wasserstein distance of every scale, and their mean."""
    if real.patches.keys() != generated.patches.keys():
        raise UsageError(
            f"swd: the reference has scales {sorted(real.patches)}, the images {sorted(generated.patches)}: "
            "their sizes differ."
        )
    values = {
        f"swd_{side}": sliced_wasserstein(real.patches[side], generated.patches[side], channels, seed)
        for side in sorted(real.patches, reverse=True)
    }
    return {"swd": sum(values.values()) / len(values), **values}


def check_reference(real: ReferenceFeatures, metrics: Sequence[str], label: str, channels: int = 3) -> None:
    """Raise a `UsageError` if statistics lack what a metric needs, before hours are spent on images."""
    known = {**NETWORK_FEATURES, "pixels": channels * PIXEL_SIDE**2}
    expected = known.get(label, len(real.mean))
    if len(real.mean) != expected:
        raise UsageError(f"The reference is of {len(real.mean)} features, but '{label}' gives {expected}.")
    if real.kept is None and ("kid" in metrics or "pr" in metrics):
        raise UsageError(
            "kid and pr need features, but the reference holds their mean and covariance alone: use --metrics fid, a "
            "data set as --ref, or statistics made by  eval_fid.py stats."
        )
    if not real.patches and "swd" in metrics:
        raise UsageError(
            "swd needs patches of the reference images: give a data set as --ref, or statistics made by "
            "eval_fid.py stats."
        )


def _kept(real: ReferenceFeatures, generated: ReferenceFeatures) -> tuple[np.ndarray, np.ndarray]:
    """The kept features of both sides."""
    assert real.kept is not None, "check_reference"
    assert generated.kept is not None, "the plan of a pass keeps features"
    return real.kept, generated.kept


def _frechet(real: ReferenceFeatures, generated: ReferenceFeatures, label: str) -> dict[str, float]:
    name = distance_name(label, generated.count)
    moments = (real.mean, real.covariance, generated.mean, generated.covariance)
    difference = generated.mean - real.mean
    numbers = {
        name: frechet_distance(*moments),
        f"{name}_mean_shift": float(difference @ difference),
        f"{name}_variance_ratio": float(np.trace(generated.covariance) / np.trace(real.covariance)),
    }
    if generated.kept is not None and generated.count > len(generated.mean) and len(generated.kept) > 1:
        error = frechet_standard_error(*moments, generated.kept, generated.count)
        numbers |= {
            f"{name}_standard_error": error,
            f"{name}_low_95": numbers[name] - 1.96 * error,
            f"{name}_high_95": numbers[name] + 1.96 * error,
        }
    return numbers
