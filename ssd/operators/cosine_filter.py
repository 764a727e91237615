"""A filter that is diagonal in the discrete cosine basis: a gain for every frequency of the image.

Shape letters: B images, H W their size.
"""

from __future__ import annotations

import torch

from .kernels import dct_matrix
from .linear import LinearOperator
from .placing import like
from .sizes import Size
from .spectral import AxisMatrices, SpectralForm


class CosineFilter(LinearOperator):
    """D x = C^T (g * C x), with the orthonormal cosine transform C: symmetric, and never below zero.

    Parameters
    ----------
    basis : AxisMatrices
        C^T of both axes, see `cosine_basis`; shared by the filters of one size.
    gains : torch.Tensor
        g >= 0, (H, W), or (B, 1, H, W) for one filter per image; float64.

    Examples
    --------
    >>> low_pass = CosineFilter(cosine_basis((4, 4)), torch.zeros(4, 4).index_fill(0, torch.tensor(0), 1.0))
    >>> low_pass.forward(torch.eye(4)[None, None]).sum(dim=-1).squeeze()
    tensor([1., 1., 1., 1.])
    """

    def __init__(self, basis: AxisMatrices, gains: torch.Tensor) -> None:
        if bool((gains < 0).any()):
            raise ValueError(f"The gains of a filter cannot be negative, got {float(gains.min())}.")
        self.basis, self.gains = basis, gains.to(torch.float64)
        self.in_size = self.out_size = (gains.shape[-2], gains.shape[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.in_size)
        return self.basis.apply(like(self.gains, x) * self.basis.apply_transposed(x))

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.forward(y)

    @property
    def spectral(self) -> SpectralForm:
        return SpectralForm(self.gains, self.basis, self.basis, self.in_size)


def cosine_basis(size: Size) -> AxisMatrices:
    """C^T of both axes: `apply` goes from frequencies to pixels, `apply_transposed` back."""
    return AxisMatrices(dct_matrix(size[0]).T, dct_matrix(size[1]).T)


def squared_frequencies(size: Size) -> torch.Tensor:
    """(pi i / H)^2 + (pi j / W)^2 in radians per pixel, squared: (H, W), float64. (arXiv:2206.13397, equation 5.)"""
    rows, columns = (torch.pi * torch.arange(side, dtype=torch.float64) / side for side in size)
    return rows.square()[:, None] + columns.square()
