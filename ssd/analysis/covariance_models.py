"""Covariances of images that take few numbers: by cosine frequencies, by bands of them, with a few directions beside.

Shape letters: D the pixels of an image.
"""

from __future__ import annotations

import torch

from ..operators.cosine_bands import NUM_BANDS, band_means, cosine_bands
from ..operators.kernels import dct_matrix
from ..operators.sizes import Size


def by_frequency(covariance: torch.Tensor, size: Size) -> torch.Tensor:
    """Only the variance of every cosine coefficient is kept: D numbers.

    Parameters
    ----------
    covariance : torch.Tensor
        (D, D), float64.
    size : (height, width)
        D = height width.

    Examples
    --------
    >>> white = torch.eye(4, dtype=torch.float64)
    >>> bool(torch.allclose(by_frequency(white, (2, 2)), white))
    True
    """
    basis, variances = _cosine_variances(covariance, size)
    return basis.T @ (variances.view(-1, 1) * basis)


def by_band(covariance: torch.Tensor, size: Size, num_bands: int = NUM_BANDS) -> torch.Tensor:
    """Only the mean variance of every band of cosine frequencies is kept, as a calibration has it: K numbers."""
    basis, variances = _cosine_variances(covariance, size)
    bands = cosine_bands(size, num_bands)
    means = band_means(variances.view(size), bands, num_bands)
    return basis.T @ (means[bands].view(-1, 1) * basis)


def low_rank_and_by_frequency(covariance: torch.Tensor, size: Size, rank: int) -> torch.Tensor:
    """Kept are the `rank` directions of the largest variance, or all there are, and of the rest `by_frequency`.

    (rank + 1) D numbers.
    """
    variances, directions = torch.linalg.eigh(covariance)
    first = max(0, len(variances) - rank)
    low_rank = (directions[:, first:] * variances[first:]) @ directions[:, first:].T
    return low_rank + by_frequency(covariance - low_rank, size)


def _cosine_variances(covariance: torch.Tensor, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    basis = torch.kron(dct_matrix(size[0]), dct_matrix(size[1]))  # a row per frequency
    return basis, (basis @ covariance * basis).sum(dim=1)
