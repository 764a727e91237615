"""Bands of cosine frequencies: the resolution at which an error of a network is told apart.

Shape letters: H W the size of an image, K bands.
"""

from __future__ import annotations

import math

import torch

from .sizes import Size

NUM_BANDS = 8


def cosine_bands(size: Size, num_bands: int = NUM_BANDS) -> torch.Tensor:
    """The band of every cosine frequency: (H, W), int64, 0 the lowest.

    The radial frequency is f = sqrt((i / H)^2 + (j / W)^2). Band 0 is the mean brightness, f = 0, alone. The edges of
    the others grow by one factor from just below the lowest frequency, 0.9 / max(H, W), to sqrt 2. At small sizes some
    bands are empty. Ours.

    Examples
    --------
    >>> cosine_bands((4, 4))[0]
    tensor([0, 1, 4, 5])
    """
    rows, columns = (torch.arange(side, dtype=torch.float64) / side for side in size)
    frequency = (rows.square()[:, None] + columns.square()).sqrt()
    edges = torch.linspace(math.log(0.9 / max(size)), math.log(2) / 2, num_bands, dtype=torch.float64).exp()
    return torch.bucketize(frequency, edges[:-1], right=True)


def band_means(values: torch.Tensor, bands: torch.Tensor, num_bands: int = NUM_BANDS) -> torch.Tensor:
    """The mean over every band of values (..., H, W) per frequency: (..., K); NaN for a band that is empty."""
    flat, index = values.flatten(-2), bands.flatten()
    total = flat.new_zeros(*flat.shape[:-1], num_bands).index_add(-1, index, flat)
    return total / torch.bincount(index, minlength=num_bands)
