"""Mean and covariance of features, streamed in float64; archives of them, which say where they come from.

Shape letters: B batch, D features.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..commands.errors import UsageError

MUST_AGREE = ("preset", "size", "filter", "extractor", "resize", "weights_sha256", "precision")
"""Entries of the provenance that two sets of statistics must share to be compared."""


ROWS_AT_ONCE = 128


class FeatureStatistics:
    """Running sums of features and of their outer products; nothing else is kept.

    Every sum carries its rounding error along (Knuth's exact addition), so that the result is the same whatever the
    order in which batches or processes are added, to far below 1e-12.

    Examples
    --------
    >>> statistics = FeatureStatistics()
    >>> statistics.add(torch.randn(10, 4))
    >>> statistics.count, statistics.mean.shape, statistics.covariance.shape
    (10, (4,), (4, 4))
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: _ExactSum | None = None
        self._outer: _ExactSum | None = None

    def add(self, features: torch.Tensor) -> None:
        """Add features (B, D)."""
        batch = features.detach().to("cpu", torch.float64).numpy()
        if not np.isfinite(batch).all():
            raise UsageError("The features hold NaN or infinity: the extractor or the images are broken.")
        if self._sum is None or self._outer is None:
            self._sum, self._outer = _ExactSum(batch.shape[1]), _ExactSum(batch.shape[1], batch.shape[1])
        self._sum.add(batch.sum(axis=0))
        for rows in self._outer.parts():
            self._outer.add(batch[:, rows].T @ batch, rows)
        self.count += len(batch)

    def merge(self, other: FeatureStatistics) -> None:
        """Add the features that another object has seen."""
        if other._sum is None or other._outer is None:
            return
        if self._sum is None or self._outer is None:
            self._sum, self._outer = _ExactSum(*other._sum.shape), _ExactSum(*other._outer.shape)
        self._sum.merge(other._sum)
        self._outer.merge(other._outer)
        self.count += other.count

    @property
    def mean(self) -> np.ndarray:
        """(D,), float64."""
        if self._sum is None:
            raise ValueError("No features were added.")
        return self._sum.value / self.count

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, (D, D), float64; needs two feature vectors."""
        if self._outer is None or self.count < 2:
            raise ValueError(f"A covariance needs at least 2 images, got {self.count}.")
        covariance = self._outer.value  # in place from here: at D = 2048 every copy is 32 MB
        covariance -= np.outer(self.count * self.mean, self.mean)
        covariance /= self.count - 1
        return covariance

    @property
    def num_features(self) -> int:
        """D; 0 before the first features."""
        return 0 if self._sum is None else self._sum.shape[0]

    def pack(self, num_features: int) -> np.ndarray:
        """Everything as one vector, float64, for another process; zeros if nothing was added."""
        if self._sum is None or self._outer is None:
            return np.zeros(1 + 2 * num_features + 2 * num_features**2)
        parts = (self._sum.total, self._sum.error, self._outer.total.ravel(), self._outer.error.ravel())
        return np.concatenate([[self.count], *parts])

    @classmethod
    def unpack(cls, packed: np.ndarray, num_features: int) -> FeatureStatistics:
        """The inverse of `pack`."""
        statistics = cls()
        statistics.count = int(packed[0])
        ends = np.cumsum([1, num_features, num_features, num_features**2, num_features**2])
        total, error, outer, outer_error = (packed[a:b] for a, b in pairwise(ends))
        square = (num_features, num_features)
        statistics._sum = _ExactSum.of(total, error)
        statistics._outer = _ExactSum.of(outer.reshape(square), outer_error.reshape(square))
        return statistics


class _ExactSum:
    """A sum of arrays with the error of every addition kept beside it."""

    def __init__(self, *shape: int) -> None:
        self.total, self.error = np.zeros(shape), np.zeros(shape)

    @classmethod
    def of(cls, total: np.ndarray, error: np.ndarray) -> _ExactSum:
        made = cls()
        made.total, made.error = total, error
        return made

    @property
    def shape(self) -> tuple[int, ...]:
        return self.total.shape

    @property
    def value(self) -> np.ndarray:
        return self.total + self.error

    def parts(self) -> list[slice]:
        """The rows in parts, so that what is made on the way stays small."""
        return [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(self.total), ROWS_AT_ONCE)]

    def add(self, term: np.ndarray, rows: slice = slice(None)) -> None:
        """Add `term` to some rows."""
        before = self.total[rows]
        total = before + term
        arrived = total - before
        self.error[rows] += (before - (total - arrived)) + (term - arrived)
        self.total[rows] = total

    def merge(self, other: _ExactSum) -> None:
        """Add another sum."""
        for rows in self.parts():
            self.add(other.total[rows], rows)
            self.error[rows] += other.error[rows]


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

    @property
    def is_unknown(self) -> bool:
        """Whether nobody knows how these statistics were made."""
        return not self.provenance


def save_statistics(path: Path, statistics: ReferenceFeatures) -> None:
    """Write an npz archive (mu, sigma, count, kept, patches_SIDE, provenance), whole or not at all."""
    arrays = {f"patches_{side}": array for side, array in statistics.patches.items()}
    if statistics.kept is not None:
        arrays["kept"] = statistics.kept
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez(
            file,
            mu=statistics.mean,
            sigma=statistics.covariance,
            count=np.int64(statistics.count),
            provenance=np.array(json.dumps(statistics.provenance, sort_keys=True)),
            **arrays,  # type: ignore[arg-type]
        )
    temporary.replace(path)


def load_statistics(path: Path) -> ReferenceFeatures:
    """Read our archive, or one of pytorch-fid or guided-diffusion (mu and sigma alone: of unknown provenance).

    Raises
    ------
    UsageError
        When the file is missing, damaged, or holds no statistics.
    """
    if not path.is_file():
        raise UsageError(f"The statistics file {path} does not exist: make it with  eval_fid.py stats --out {path}.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files if isinstance(archive, np.lib.npyio.NpzFile) else []
            if "mu" not in names or "sigma" not in names:
                raise UsageError(
                    f"{path} holds no statistics (arrays mu and sigma), only {names}: for images use npz:{path}."
                )
            mean, covariance = archive["mu"].astype(np.float64), archive["sigma"].astype(np.float64)
            patches = {int(n.removeprefix("patches_")): archive[n] for n in names if n.startswith("patches_")}
            kept = archive["kept"] if "kept" in names else None
            count = int(archive["count"]) if "count" in names else 0
            provenance = json.loads(str(archive["provenance"])) if "provenance" in names else {}
    except UsageError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise UsageError(f"{path} is no complete statistics file ({error}): make it again.") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UsageError(f"{path}: mu and sigma must be (D,) and (D, D), got {mean.shape} and {covariance.shape}.")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UsageError(f"{path} holds NaN or infinity: make it again from sound images.")
    return ReferenceFeatures(mean, covariance, count, kept, patches, provenance)


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
    for name in MUST_AGREE:
        if name in ours and name in theirs and ours[name] != theirs[name]:
            raise UsageError(
                f"{what} cannot be compared: {name} is {theirs[name]!r} there and {ours[name]!r} here; "
                "use statistics made in the same way."
            )
