"""The Jacobian of a denoiser at an image: written out for small images, felt with vectors for large ones.

The best denoiser of y = x + sigma z has a symmetric Jacobian, J = Cov[x | y] / sigma^2, whose eigenvalues are what it
keeps of each direction (Miyasawa 1961; arXiv:2310.02557, section 3). A network's need not be: the symmetric part is
looked at, and the asymmetry told.

    d_eff = tr J                                                            directions that are kept
    MSE   = E [2 sigma^2 tr J + |y - f(y)|^2 - sigma^2 d]                   SURE (Stein 1981), for any denoiser

A `LinearMap` is a Jacobian of either kind. Shape letters: B images at once; d numbers of the input, n of the output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator as SparseOperator
from scipy.sparse.linalg import eigsh
from torch.nn.attention import SDPBackend, sdpa_kernel

Map = Callable[[torch.Tensor], torch.Tensor]
"""(B, d) -> (B, n), every image on its own, differentiable."""

LARGEST_DENSE = 1024
"""Numbers of an image up to which a Jacobian is written out."""

ROWS_AT_ONCE = 64

NOTHING = 1e-9
"""A Jacobian of this norm or less is zero up to round-off."""


class LinearMap(ABC):
    """A Jacobian J, (n, d)."""

    @abstractmethod
    def apply(self, vectors: torch.Tensor) -> torch.Tensor:
        """J v: (B, d) -> (B, n)."""

    @abstractmethod
    def apply_transposed(self, vectors: torch.Tensor) -> torch.Tensor:
        """J^T u: (B, n) -> (B, d)."""


class DenseMap(LinearMap):
    """A matrix J, (n, d)."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix = matrix

    def apply(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors @ self.matrix.T

    def apply_transposed(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors @ self.matrix


class ImplicitMap(LinearMap):
    """The Jacobian of f at x by automatic differentiation, forward for J v and backward for J^T u.

    Parameters
    ----------
    function : callable
        f, (B, d) -> (B, n).
    x : torch.Tensor
        (d,).
    """

    def __init__(self, function: Map, x: torch.Tensor) -> None:
        self._function, self._x = function, x

    def apply(self, vectors: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # the attention that has forward derivatives
            return torch.func.jvp(self._function, (self._x.expand_as(vectors).clone(),), (vectors,))[1].detach()

    def apply_transposed(self, vectors: torch.Tensor) -> torch.Tensor:
        return _rows(self._function, self._x, vectors)


def dense_jacobian(function: Map, x: torch.Tensor) -> torch.Tensor:
    """J of f at x, (n, d): n backward passes, `ROWS_AT_ONCE` at once.

    Examples
    --------
    >>> dense_jacobian(lambda y: y.square(), torch.tensor([1.0, 3.0]))
    tensor([[2., 0.],
            [0., 6.]])
    """
    outputs = function(x[None]).shape[1]
    basis = torch.eye(outputs, dtype=x.dtype, device=x.device)
    return torch.cat([_rows(function, x, rows) for rows in basis.split(ROWS_AT_ONCE)])


def _rows(function: Map, x: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """u^T J for every row u: one backward pass through as many copies of the image."""
    with torch.enable_grad():
        copies = x.detach().expand(len(vectors), -1).clone().requires_grad_()
        return torch.autograd.grad(function(copies), copies, vectors)[0].detach()


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the symmetric part (J + J^T) / 2, descending, and their vectors.

    Attributes
    ----------
    eigenvalues : torch.Tensor
        (k,).
    vectors : torch.Tensor
        (d, k), orthonormal columns.
    """

    eigenvalues: torch.Tensor
    vectors: torch.Tensor


def spectrum(matrix: torch.Tensor) -> Spectrum:
    """All of a square matrix (d, d)."""
    eigenvalues, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return Spectrum(eigenvalues.flip(0), vectors.flip(1))


def leading_spectrum(jacobian: LinearMap, size: int, number: int, seed: int = 0) -> Spectrum:
    """The largest eigenvalues of the symmetric part of a d x d Jacobian, by Lanczos iterations (ARPACK).

    Parameters
    ----------
    jacobian : LinearMap
    size : int
        d.
    number : int
        k, below d.
    seed : int
        Of the first vector.
    """

    def symmetric(vector: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(vector.reshape(1, -1))
        return ((jacobian.apply(v) + jacobian.apply_transposed(v)) / 2).flatten().numpy()

    start = np.random.default_rng(seed).standard_normal(size)
    operator = SparseOperator((size, size), matvec=symmetric, dtype=np.float64)
    eigenvalues, vectors = eigsh(operator, number, which="LA", v0=start)
    order = np.argsort(eigenvalues)[::-1].copy()
    return Spectrum(torch.from_numpy(eigenvalues[order]), torch.from_numpy(vectors[:, order]))


def asymmetry(matrix: torch.Tensor) -> float | None:
    """|J - J^T| / |J| in the Frobenius norm: 0 for a symmetric matrix, sqrt(2) where J and J^T are orthogonal.

    None for a matrix of nothing but rounding, of which no such thing can be said.
    """
    norm = float(matrix.norm())
    return float((matrix - matrix.T).norm()) / norm if norm > NOTHING else None


@dataclass(frozen=True)
class Probed:
    """What random vectors say of a square Jacobian.

    Attributes
    ----------
    trace, trace_error : float
        tr J (Hutchinson 1989) and its standard error.
    squared_norm : float
        |J|^2 in the Frobenius norm.
    asymmetry : float or None
    """

    trace: float
    trace_error: float
    squared_norm: float
    asymmetry: float | None


def probe(jacobian: LinearMap, probes: torch.Tensor) -> Probed:
    """tr J = E z^T J z, |J|^2 = E |J z|^2 and |J - J^T|^2 for vectors of random signs, see `random_signs`.

    Parameters
    ----------
    jacobian : LinearMap
        Square.
    probes : torch.Tensor
        (P, d), P at least 2.
    """
    forward, backward = jacobian.apply(probes), jacobian.apply_transposed(probes)
    traces = (probes * forward).sum(dim=1)
    squares = (forward.square().sum(dim=1) + backward.square().sum(dim=1)) / 2
    difference = (forward - backward).square().sum(dim=1).mean()
    error, norm = float(traces.std() / len(probes) ** 0.5), float(squares.mean())
    asymmetric = float((difference / norm).sqrt()) if norm > NOTHING**2 else None
    return Probed(float(traces.mean()), error, norm, asymmetric)


def random_signs(number: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """(number, size), each 1 or -1, float64."""
    return torch.randint(0, 2, (number, size), generator=generator).double() * 2 - 1


def sure(noisy: torch.Tensor, denoised: torch.Tensor, sigma: float, trace: float) -> float:
    """Stein's unbiased estimate of |f(y) - x|^2 from y alone, for one image of d numbers and tr J."""
    return 2 * sigma**2 * trace + float((noisy - denoised).square().sum()) - sigma**2 * noisy.numel()
