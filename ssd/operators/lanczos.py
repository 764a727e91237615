"""Functions of an operator that is known only by what it does, by the Lanczos process.

The fallback for operators without a singular value decomposition: slower than the closed form by orders of magnitude,
and exact only when the iterations reach the number of distinct singular values. Shape letters: N independent vectors,
n their length, m iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from .sizes import Size
from .spectral import Covariance, SpectralCalculus, SpectralFunction

if TYPE_CHECKING:
    from .linear import LinearOperator

ROUND_OFF = 1e-12
"""What is below this fraction of the largest eigenvalue of D^T D is zero. Everything here runs in float64."""


def lanczos_function(
    matvec: Callable[[torch.Tensor], torch.Tensor],
    f: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    num_iterations: int,
) -> torch.Tensor:
    """f(A) x for a symmetric matrix A >= 0: |x| Q f(T) e_1 with the Lanczos basis Q and tridiagonal T = Q^T A Q.

    Every vector is orthogonalised twice against all earlier ones, so that the basis stays orthonormal. (Golub and Van
    Loan, Matrix Computations, section 10.1; Higham, Functions of Matrices, section 13.2.)

    Parameters
    ----------
    matvec : callable
        A on vectors, (N, n) -> (N, n).
    f : callable
        Elementwise function of eigenvalues (N, m).
    x : torch.Tensor
        (N, n), float64.
    num_iterations : int
        m; more than n are of no use.
    """
    m = min(num_iterations, x.shape[1])
    tiny = torch.finfo(x.dtype).tiny
    norm = x.norm(dim=1, keepdim=True)
    basis = x.new_zeros(len(x), m, x.shape[1])
    diagonal, off_diagonal = x.new_zeros(len(x), m), x.new_zeros(len(x), max(m - 1, 0))
    q = x / norm.clamp(min=tiny)
    for k in range(m):
        basis[:, k] = q
        product = matvec(q)
        diagonal[:, k] = (product * q).sum(dim=1)
        for _ in range(2):
            product = product - ((basis @ product[..., None]).mT @ basis)[:, 0]
        if k + 1 == m:
            break
        length = product.norm(dim=1, keepdim=True)
        # An invariant subspace is found: the vector of round-off is dropped, its rows of T stay apart.
        alive = length > ROUND_OFF * diagonal.abs().amax(dim=1, keepdim=True).clamp(min=tiny)
        off_diagonal[:, k] = torch.where(alive, length, 0.0)[:, 0]
        q = torch.where(alive, product / length.clamp(min=tiny), 0.0)
    tridiagonal = torch.diag_embed(diagonal) + torch.diag_embed(off_diagonal, 1) + torch.diag_embed(off_diagonal, -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    coefficients = (vectors * f(values)[:, None]) @ vectors[:, :1].mT  # f(T) e_1, (N, m, 1)
    return norm * (coefficients.mT @ basis)[:, 0]


class KrylovForm(SpectralCalculus):
    """Lanczos stand-in for a singular value decomposition.

    Parameters
    ----------
    operator : LinearOperator
        With `forward` and `adjoint`.
    num_iterations : int
        Lanczos iterations per application.
    """

    def __init__(self, operator: LinearOperator, num_iterations: int) -> None:
        self.operator = operator
        self.num_iterations = num_iterations
        # Its rank is unknown: noise for a null space that is not there costs nothing but time.
        self.has_null_space = True

    @cached_property
    def _largest(self) -> float:
        """lambda_max: the largest Ritz value of D^T D from a fixed random start."""
        height, width = self.operator.in_size
        start = torch.randn(1, height * width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        seen: list[torch.Tensor] = []

        def record(values: torch.Tensor) -> torch.Tensor:
            seen.append(values.max())
            return values

        lanczos_function(self._gram_matvec, record, start, max(self.num_iterations, 100))
        return float(seen[0].clamp(min=0).sqrt())

    def largest_singular_value(self) -> float:
        return self._largest

    def gain(self, g: SpectralFunction, y: torch.Tensor) -> torch.Tensor:
        """D^T h(D D^T) y with h = g(lambda) / lambda."""

        def h(values: torch.Tensor) -> torch.Tensor:
            lam = self._singular_values(values)
            return torch.where(lam > 0, g(lam) / lam.clamp(min=torch.finfo(lam.dtype).tiny), 0.0)

        def matvec(vectors: torch.Tensor) -> torch.Tensor:
            images = vectors.view(-1, 1, *self.operator.out_size)
            return self.operator.forward(self.operator.adjoint(images)).flatten(1)

        flat = y.double().reshape(-1, y.shape[-2:].numel())
        return self.operator.adjoint(lanczos_function(matvec, h, flat, self.num_iterations).view_as(y)).to(y)

    def covariance(self, f: SpectralFunction) -> KrylovCovariance:
        return KrylovCovariance(self, f, self.operator.in_size)

    def input_function(self, f: SpectralFunction, x: torch.Tensor) -> torch.Tensor:
        """f(lambda) of D^T D: (..., H, W) -> (..., H, W)."""
        flat = x.double().reshape(-1, x.shape[-2:].numel())
        result = lanczos_function(
            self._gram_matvec, lambda values: f(self._singular_values(values)), flat, self.num_iterations
        )
        return result.view_as(x).to(x)

    def _gram_matvec(self, vectors: torch.Tensor) -> torch.Tensor:
        images = vectors.view(-1, 1, *self.operator.in_size)
        return self.operator.adjoint(self.operator.forward(images)).flatten(1)

    def _singular_values(self, eigenvalues: torch.Tensor) -> torch.Tensor:
        """Square roots of Ritz values of D^T D; round-off around zero, squared by D^T D, is zero."""
        return torch.where(eigenvalues > ROUND_OFF * self._largest**2, eigenvalues, 0.0).sqrt()


@dataclass(frozen=True)
class KrylovCovariance(Covariance):
    """f(lambda) of D^T D, applied by Lanczos."""

    form: KrylovForm
    variance: SpectralFunction
    size: Size

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return self.form.input_function(self.variance, x)

    def sqrt_apply(self, noise: torch.Tensor) -> torch.Tensor:
        return self.form.input_function(lambda lam: self.variance(lam).sqrt(), noise)
