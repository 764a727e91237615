"""Mean and covariance of features, streamed, and the Frechet distance between two Gaussians, in float64."""

from __future__ import annotations

import numpy as np
import torch


class FeatureStatistics:
    """Running sums of features and of their outer products; nothing else is kept.

    Examples
    --------
    >>> statistics = FeatureStatistics()
    >>> statistics.add(torch.randn(10, 4))
    >>> statistics.count, statistics.mean.shape, statistics.covariance.shape
    (10, (4,), (4, 4))
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: np.ndarray | None = None
        self._outer: np.ndarray | None = None

    def add(self, features: torch.Tensor) -> None:
        """Add features (B, D)."""
        batch = features.detach().to("cpu", torch.float64).numpy()
        if not np.isfinite(batch).all():
            raise ValueError("The features hold NaN or infinity: the extractor or the images are broken.")
        total, outer = batch.sum(axis=0), batch.T @ batch
        self._sum = total if self._sum is None else self._sum + total
        self._outer = outer if self._outer is None else self._outer + outer
        self.count += len(batch)

    @property
    def mean(self) -> np.ndarray:
        """(D,), float64."""
        if self._sum is None:
            raise ValueError("No features were added.")
        return self._sum / self.count

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, (D, D), float64; needs two feature vectors."""
        if self._outer is None or self.count < 2:
            raise ValueError(f"A covariance needs at least 2 images, got {self.count}.")
        return (self._outer - self.count * np.outer(self.mean, self.mean)) / (self.count - 1)


def frechet_distance(
    mean_1: np.ndarray, covariance_1: np.ndarray, mean_2: np.ndarray, covariance_2: np.ndarray
) -> float:
    """Squared Frechet (2-Wasserstein) distance between N(mean_1, covariance_1) and N(mean_2, covariance_2).

        |mu_1 - mu_2|^2 + tr(S_1) + tr(S_2) - 2 tr (S_1^{1/2} S_2 S_1^{1/2})^{1/2}     (arXiv:1706.08500)

    By symmetric eigendecompositions: no complex numbers, no iteration, singular covariances allowed. Tiny
    negative values by round-off are returned as they are.

    Parameters
    ----------
    mean_1, mean_2 : np.ndarray
        (D,), float64.
    covariance_1, covariance_2 : np.ndarray
        (D, D), float64, symmetric positive semi-definite.
    """
    values, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ covariance_2 @ root)
    difference = mean_1 - mean_2
    return float(
        difference @ difference
        + np.trace(covariance_1)
        + np.trace(covariance_2)
        - 2 * np.sqrt(np.clip(cross, 0, None)).sum()
    )
