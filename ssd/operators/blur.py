"""Gaussian blur in the discrete cosine basis: the heat equation with reflecting borders.

Shape letters: B images, H W their size.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch

from .kernels import dct_matrix
from .linear import SeparableOperator
from .sizes import Size
from .spectral import AxisMatrices, SpectralForm, outer


class Blur(SeparableOperator):
    """Gaussian blur with reflecting borders: the heat equation, diagonal in the cosine basis.

    Parameters
    ----------
    size : (height, width)
    sigma : float or torch.Tensor
        Width in pixels, >= 0; a tensor (B,) gives every image its own.
    """

    def __init__(self, size: Size, sigma: float | torch.Tensor) -> None:
        sigma = torch.as_tensor(sigma, dtype=torch.float64)
        if bool((sigma < 0).any()):
            raise ValueError(f"The width of a blur cannot be negative, got {sigma.tolist()}.")
        self._gains = heat_gains(size, sigma)
        self._cosines = dct_matrix(size[0]), dct_matrix(size[1])
        cos_h, cos_w = self._cosines
        gain_h, gain_w = self._gains
        super().__init__(cos_h.T @ (gain_h[..., :, None] * cos_h), cos_w.T @ (gain_w[..., :, None] * cos_w))

    @cached_property
    def spectral(self) -> SpectralForm:
        basis = AxisMatrices(self._cosines[0].T, self._cosines[1].T)
        return SpectralForm(outer(*self._gains), basis, basis, self.in_size)


def heat_gains(size: Size, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How much of each cosine frequency a blur of width `sigma` leaves, per axis: exp(-(pi k / N)^2 sigma^2 / 2).

    The solution of the heat equation with reflecting borders at time sigma^2 / 2 (arXiv:2206.13397, equation 6).

    Parameters
    ----------
    size : (height, width)
    sigma : torch.Tensor
        Width in pixels, >= 0, shape () or (B,).

    Returns
    -------
    tuple of torch.Tensor
        (H,) and (W,), or (B, 1, H) and (B, 1, W); float64.
    """
    heat = sigma.to(torch.float64).square() / 2
    heat = heat if heat.ndim == 0 else heat.view(-1, 1, 1)

    def gains(length: int) -> torch.Tensor:
        frequency = math.pi * torch.arange(length, dtype=torch.float64) / length
        return torch.exp(-heat * frequency.square())

    return gains(size[0]), gains(size[1])
