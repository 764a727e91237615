"""The Frechet distance between two Gaussians in float64, and how far sampling noise moves it.

Shape letter: D features.
"""

from __future__ import annotations

import numpy as np


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

    Raises
    ------
    ValueError
        When the two have different numbers of features.
    """
    if mean_1.shape != mean_2.shape:
        raise ValueError(f"Cannot compare {len(mean_1)} with {len(mean_2)} features: use the same extractor for both.")
    root = symmetric_root(covariance_1)
    inner = root @ covariance_2 @ root
    del root  # at D = 2048 every matrix is 32 MB
    cross = np.linalg.eigvalsh(_symmetric(inner))
    difference = mean_1 - mean_2
    return float(
        difference @ difference
        + np.trace(covariance_1)
        + np.trace(covariance_2)
        - 2 * np.sqrt(np.clip(cross, 0, None)).sum()
    )


def frechet_standard_error(
    reference_mean: np.ndarray,
    reference_covariance: np.ndarray,
    mean: np.ndarray,
    covariance: np.ndarray,
    features: np.ndarray,
    count: int,
) -> float:
    """Standard error of the distance by the infinitesimal jackknife, the reference taken as fixed (ours).

    The derivative of the distance with respect to the weight of one generated image with features x is

        2 (mu - mu_r) . (x - mu) + (x - mu)^T (I - A) (x - mu) - tr((I - A) S),
        A = S_r^{1/2} (S_r^{1/2} S S_r^{1/2})^{-1/2} S_r^{1/2};

    its standard deviation over images, divided by the root of their number, is what leaving images out in turn
    would give, for the price of one eigendecomposition. The bias by the number of images is not in it.

    Parameters
    ----------
    reference_mean, mean : np.ndarray
        (D,), float64.
    reference_covariance, covariance : np.ndarray
        (D, D), float64.
    features : np.ndarray
        (K, D), the features of all generated images or of a random part of them.
    count : int
        Number of generated images behind `mean` and `covariance`; more than D, or the derivative does not exist.
    """
    if count <= len(mean):
        raise ValueError(f"The standard error needs more images than features: {count} images, {len(mean)} features.")
    root = symmetric_root(reference_covariance)
    values, vectors = np.linalg.eigh(_symmetric(root @ covariance @ root))
    floor = max(values[-1], 0.0) * len(mean) * np.finfo(np.float64).eps
    inverse_root = np.where(values > floor, 1 / np.sqrt(np.where(values > floor, values, 1.0)), 0.0)
    half = root @ (vectors * np.sqrt(inverse_root))
    slope = np.eye(len(mean)) - half @ half.T
    influence = np.concatenate([_influence(part, mean, mean - reference_mean, slope) for part in _chunks(features)])
    return float(np.std(influence, ddof=1) / np.sqrt(count))


def _influence(features: np.ndarray, mean: np.ndarray, difference: np.ndarray, slope: np.ndarray) -> np.ndarray:
    centred = features.astype(np.float64) - mean
    return 2 * centred @ difference + ((centred @ slope) * centred).sum(axis=1)


def _chunks(rows: np.ndarray, size: int = 1024) -> list[np.ndarray]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def symmetric_root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root; negative eigenvalues by round-off count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2
