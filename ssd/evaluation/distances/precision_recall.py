"""Precision and recall of generated images: are they like real ones, and are real ones covered?"""

from __future__ import annotations

import numpy as np

from ...commands.errors import UsageError

CHUNK = 1024


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (arXiv:1904.06991).

    The manifold of a set is the union of balls around its points, each reaching to the k-th nearest other point.
    Precision is the share of generated images inside the manifold of the real ones, recall the converse.

    Parameters
    ----------
    real, generated : np.ndarray
        (N, D) and (M, D) features; more than k each.
    k : int

    Returns
    -------
    precision, recall : float
        In [0, 1].
    """
    if min(len(real), len(generated)) <= k:
        raise UsageError(
            f"Precision and recall need more than {k} images on each side, got {len(real)} and {len(generated)}."
        )
    return _share_inside(real, generated, k), _share_inside(generated, real, k)


def _share_inside(manifold: np.ndarray, points: np.ndarray, k: int) -> float:
    """The share of `points` within a ball of `manifold`."""
    radii = np.concatenate([_radii(manifold, start, k) for start in range(0, len(manifold), CHUNK)])
    inside = [
        (squared_distances(points[start : start + CHUNK], manifold) <= radii).any(axis=1)
        for start in range(0, len(points), CHUNK)
    ]
    return float(np.concatenate(inside).mean())


def _radii(manifold: np.ndarray, start: int, k: int) -> np.ndarray:
    """Squared distances of points start .. start + CHUNK to their k-th nearest other point."""
    distances = squared_distances(manifold[start : start + CHUNK], manifold)
    rows = np.arange(len(distances))
    distances[rows, start + rows] = np.inf
    return np.partition(distances, k - 1, axis=1)[:, k - 1]


def squared_distances(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """All squared Euclidean distances, (N, D) and (M, D) -> (N, M), float64."""
    one, two = one.astype(np.float64), two.astype(np.float64)
    products = (one**2).sum(axis=1)[:, None] + (two**2).sum(axis=1) - 2 * one @ two.T
    return np.clip(products, 0, None)
