"""Precision and recall of generated images: are they like real ones, and are real ones covered?"""

from __future__ import annotations

import numpy as np
import torch

from ...commands.errors import UsageError

CHUNK = 1024
"""Rows of distances that are made at once: 80 MB for 10,000 images on the other side."""


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

    Examples
    --------
    >>> points = np.random.default_rng(0).standard_normal((50, 2))
    >>> precision_recall(points, points + 0.01)
    (1.0, 1.0)
    >>> precision_recall(points, points + 100)
    (0.0, 0.0)
    """
    if min(len(real), len(generated)) <= k:
        raise UsageError(
            f"Precision and recall need more than {k} images on each side, got {len(real)} and {len(generated)}."
        )
    one, two = (torch.from_numpy(features).double() for features in (real, generated))
    return _share_inside(one, two, k), _share_inside(two, one, k)


def _share_inside(manifold: torch.Tensor, points: torch.Tensor, k: int) -> float:
    """The share of `points` within a ball of `manifold`."""
    # The nearest of all points is the point itself.
    nearest = [torch.cdist(part, manifold).kthvalue(k + 1).values for part in manifold.split(CHUNK)]
    radii = torch.cat(nearest)
    inside = [(torch.cdist(part, manifold) <= radii).any(dim=1) for part in points.split(CHUNK)]
    return float(torch.cat(inside).numpy().mean())
