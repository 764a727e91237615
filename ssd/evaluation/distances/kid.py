"""Kernel Inception Distance: unbiased squared MMD of features with a cubic kernel, over random subsets."""

from __future__ import annotations

import numpy as np

from ...commands.errors import UsageError
from ...seeding import numpy_generator


def kernel_distance(
    features_1: np.ndarray, features_2: np.ndarray, seed: int = 0, num_subsets: int = 100, subset_size: int = 1000
) -> tuple[float, float]:
    """Mean and standard deviation over subsets of the unbiased MMD^2 with kernel (x . y / D + 1)^3.

    Source: arXiv:1801.01401. Subset k depends on (seed, k) alone; NumPy's global generator is not touched.

    Parameters
    ----------
    features_1, features_2 : np.ndarray
        (N_1, D) and (N_2, D).
    seed : int
    num_subsets : int
    subset_size : int
        Images per subset and side; at most the smaller N is taken.

    Returns
    -------
    mean, standard_deviation : float
        May be slightly negative: the estimate has no bias.
    """
    size = min(subset_size, len(features_1), len(features_2))
    if size < 2:
        raise UsageError(f"KID needs at least 2 images on each side, got {len(features_1)} and {len(features_2)}.")
    values = []
    for k in range(num_subsets):
        generator = numpy_generator(seed, "kid", k)
        one, two = (
            f[generator.choice(len(f), size, replace=False)].astype(np.float64) for f in (features_1, features_2)
        )
        values.append(unbiased_mmd(one, two))
    return float(np.mean(values)), float(np.std(values))


def unbiased_mmd(one: np.ndarray, two: np.ndarray) -> float:
    """Unbiased MMD^2 between two samples of equal size (m, D), m >= 2, float64."""
    size = len(one)

    def off_diagonal_mean(x: np.ndarray) -> float:
        kernel = _kernel(x, x)
        return (kernel.sum() - np.trace(kernel)) / (size * (size - 1))

    return float(off_diagonal_mean(one) + off_diagonal_mean(two) - 2 * _kernel(one, two).mean())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3
