"""Mean and covariance of features, streamed in float64; archives of them, which say where they come from.

Shape letters: B batch, D features.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..commands.errors import UsageError
from ..commands.files import whole_file

MUST_AGREE = (
    "preset",
    "size",
    "channels",
    "filter",
    "background",
    "extractor",
    "resize",
    "weights_sha256",
    "precision",
)
"""Entries of the provenance that two sets of statistics must share to be compared."""

ROWS_AT_ONCE = 128
"""Rows of a sum that are added together, so that what is made on the way stays small."""


class FeatureStatistics:
    """Running sums of features and of their outer products; nothing else is kept.

    Every sum carries its rounding error along (Knuth's exact addition), so that the result is the same, to far below
    1e-12, whatever the order in which batches or processes are added. Plain float64 sums are not: measured with 20,000
    vectors, a covariance moved by 1e-15 of its largest entry between one and two processes, and a variance by 4e-12 of
    itself where the mean is 80 times the deviation, by 9e-8 where it is 16,000 times.

    Examples
    --------
    >>> statistics = FeatureStatistics()
    >>> statistics.add(torch.randn(10, 4))
    >>> statistics.count, statistics.mean.shape, statistics.covariance.shape
    (10, (4,), (4, 4))
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: np.ndarray | None = None

    def add(self, features: torch.Tensor) -> None:
        """Add features (B, D)."""
        batch = features.detach().to("cpu", torch.float64).numpy()
        if not np.isfinite(batch).all():
            raise UsageError("The features hold NaN or infinity: the extractor or the images are broken.")
        if self._sums is None:
            self._sums = empty_sums(batch.shape[1])
        _add_exactly(self._sums, slice(1), batch.sum(axis=0))
        for rows in _row_parts(batch.shape[1]):
            _add_exactly(self._sums, slice(1 + rows.start, 1 + rows.stop), batch[:, rows].T @ batch)
        self.count += len(batch)

    def add_sums(self, count: int, sums: np.ndarray) -> None:
        """Add the `sums` of an object that has seen `count` features; it may be in another process."""
        if self._sums is None:
            self._sums = empty_sums(sums.shape[2])
        for rows in _row_parts(sums.shape[1]):
            _add_exactly(self._sums, rows, sums[0, rows])
            self._sums[1, rows] += sums[1, rows]
        self.count += count

    @property
    def sums(self) -> np.ndarray:
        """(2, 1 + D, D), float64: totals, and the rounding errors that belong to them.

        Row 0 is the sum of the features, the others are the sum of their outer products.
        """
        if self._sums is None:
            raise ValueError("No features were added.")
        return self._sums

    @property
    def mean(self) -> np.ndarray:
        """(D,), float64."""
        return self.sums[:, 0].sum(axis=0) / self.count

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, (D, D), float64; needs two feature vectors."""
        if self.count < 2:
            raise ValueError(f"A covariance needs at least 2 images, got {self.count}.")
        covariance = self.sums[0, 1:] + self.sums[1, 1:]  # in place from here: at D = 2048 every copy is 32 MB
        covariance -= np.outer(self.count * self.mean, self.mean)
        covariance /= self.count - 1
        return covariance

    @property
    def num_features(self) -> int:
        """D; 0 before the first features."""
        return 0 if self._sums is None else self._sums.shape[2]


def empty_sums(num_features: int) -> np.ndarray:
    """`FeatureStatistics.sums` of no features: (2, 1 + D, D), zeros."""
    return np.zeros((2, 1 + num_features, num_features))


def _add_exactly(sums: np.ndarray, rows: slice, term: np.ndarray) -> None:
    """Add `term` to some rows of the totals, and what rounding lost to the errors (Knuth's two-sum)."""
    before = sums[0, rows]
    total = before + term
    arrived = total - before
    sums[1, rows] += (before - (total - arrived)) + (term - arrived)
    sums[0, rows] = total


def _row_parts(length: int) -> list[slice]:
    return [slice(start, min(start + ROWS_AT_ONCE, length)) for start in range(0, length, ROWS_AT_ONCE)]


@dataclass
class ReferenceFeatures:
    """Statistics of the features of one set of images.

    Parameters
    ----------
    mean, covariance : np.ndarray
        (D,) and (D, D), float64.
    count : int
        Number of images.
    kept : np.ndarray, optional
        (K, D), float32: the features of a random part of the images.
    patches : dict
        Side -> (P, d), float32, patches of Laplacian bands.
    provenance : dict
        Where the images come from and how they were measured; empty when unknown.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int
    kept: np.ndarray | None = None
    patches: dict[int, np.ndarray] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def save_statistics(path: Path, statistics: ReferenceFeatures) -> None:
    """Write an npz archive (mu, sigma, count, kept, patches_SIDE, provenance), whole or not at all."""
    arrays = {f"patches_{side}": array for side, array in statistics.patches.items()}
    if statistics.kept is not None:
        arrays["kept"] = statistics.kept
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            mu=statistics.mean,
            sigma=statistics.covariance,
            count=np.int64(statistics.count),
            provenance=np.array(json.dumps(statistics.provenance, sort_keys=True)),
            **arrays,  # type: ignore[arg-type]
        )


def load_statistics(path: Path) -> ReferenceFeatures:
    """Read our archive, or one of pytorch-fid or guided-diffusion (mu and sigma alone: of unknown provenance).

    Raises
    ------
    UsageError
        When the file is missing or damaged, or does not hold statistics.
    """
    if not path.is_file():
        raise UsageError(f"The statistics file {path} does not exist: make it with  eval_fid.py stats --out {path}.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files if isinstance(archive, np.lib.npyio.NpzFile) else []
            if "mu" not in names or "sigma" not in names:
                raise UsageError(
                    f"{path} does not hold statistics (arrays mu and sigma), only {names}: for images use npz:{path}."
                )
            mean, covariance = archive["mu"].astype(np.float64), archive["sigma"].astype(np.float64)
            patches = {int(n.removeprefix("patches_")): archive[n] for n in names if n.startswith("patches_")}
            kept = archive["kept"] if "kept" in names else None
            count = int(archive["count"]) if "count" in names else 0
            provenance = json.loads(str(archive["provenance"])) if "provenance" in names else {}
    except UsageError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise UsageError(f"{path} is not a complete statistics file ({error}): make it again.") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UsageError(f"{path}: mu and sigma must be (D,) and (D, D), got {mean.shape} and {covariance.shape}.")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UsageError(f"{path} holds NaN or infinity: make it again from sound images.")
    return ReferenceFeatures(mean, covariance, count, kept, patches, provenance)


def channels_of(provenance: Mapping[str, Any]) -> int:
    """Channels of the images behind statistics; statistics of colour images do not write them down."""
    return int(provenance.get("channels", 3))


def check_compatible(ours: Mapping[str, Any], theirs: Mapping[str, Any], what: str = "the statistics") -> None:
    """Raise a `UsageError` with both values if two provenances disagree in what must agree.

    Parameters
    ----------
    ours : mapping
        What this run does; entries that are absent are not compared.
    theirs : mapping
        What the statistics were made with; empty means unknown, and nothing is compared.
    what : str
        Name of the other side for the message.
    """
    if theirs:
        theirs = {**theirs, "channels": channels_of(theirs)}
    for name in MUST_AGREE:
        if name in ours and name in theirs and ours[name] != theirs[name]:
            raise UsageError(
                f"{what} cannot be compared: {name} is {theirs[name]!r} there and {ours[name]!r} here; "
                "use statistics made in the same way."
            )
