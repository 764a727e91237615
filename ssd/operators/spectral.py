"""Functions of a linear operator through its singular value decomposition, exact and cheap.

For D = U diag(lambda) V^T the posterior needs two things: V f(lambda) V^T (covariances and their roots) and
V g(lambda) U^T (gains). Shape letters: H W input size, h w output size, r_h r_w ranks per axis; a leading (B, 1) stands
for per-image operators.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

import torch

from .placing import like
from .sizes import Size

SpectralFunction = Callable[[torch.Tensor], torch.Tensor]
"""A function of singular values lambda >= 0, elementwise, float64. It may treat lambda = 0 apart."""

ZERO = 1e-13
"""Singular values below this fraction of the largest are zero up to round-off, and treated as the null space."""


def outer(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """All products rows_i columns_j: (..., m), (..., n) -> (..., m, n)."""
    return rows[..., :, None] * columns[..., None, :]


class Covariance(ABC):
    """A covariance of images: applied, rooted, or written out.

    Attributes
    ----------
    size : (height, width)
        The size of the images that it describes; channels are independent.
    """

    size: Size

    @abstractmethod
    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """cov x: (..., H, W) -> (..., H, W)."""

    @abstractmethod
    def sqrt_apply(self, noise: torch.Tensor) -> torch.Tensor:
        """cov^{1/2} noise with the symmetric root: white noise (..., H, W) -> noise of this covariance.

        The symmetric root does not depend on the signs and order of singular vectors, so the same noise gives the
        same image on every machine.
        """

    def mean_variance(self) -> torch.Tensor:
        """The variance of a pixel, averaged over the image: trace / (H W), float64, () or (B, 1, 1, 1)."""
        raise ValueError(f"{type(self).__name__} has no closed form, so that its trace is not known.")

    def to_dense(self) -> torch.Tensor:
        """The matrix on flattened images, (H W, H W), float64. One timestep only; for tests and study."""
        height, width = self.size
        return self.apply(torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)).flatten(1)


class SpectralCalculus(ABC):
    """What the posterior needs of an operator D."""

    has_null_space: bool
    """Whether some direction of the input is lost."""

    is_closed_form = False

    @abstractmethod
    def largest_singular_value(self) -> float:
        """lambda_max, the gain of the operator."""

    @abstractmethod
    def gain(self, g: SpectralFunction, y: torch.Tensor) -> torch.Tensor:
        """V g(lambda) U^T y: (..., h, w) -> (..., H, W), for g(0) = 0."""

    @abstractmethod
    def covariance(self, f: SpectralFunction) -> Covariance:
        """V f(lambda) V^T + f(0) (I - V V^T), for f >= 0."""


class AxisMatrices:
    """A_h (x) A_w: one float64 matrix per axis, acting on images as A_h x A_w^T.

    The matrices are (m, n), or (B, 1, m, n) for per-image operators. Copies in the dtype and on the device of the
    images are made once and kept.
    """

    def __init__(self, matrix_h: torch.Tensor, matrix_w: torch.Tensor) -> None:
        self.matrix_h = matrix_h.to(torch.float64)
        self.matrix_w = self.matrix_h if matrix_w is matrix_h else matrix_w.to(torch.float64)
        self._cast: dict[tuple[torch.device, torch.dtype], tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def are_the_same(self) -> bool:
        """Whether both axes have one matrix, as those of square images: it is decomposed once."""
        return self.matrix_h is self.matrix_w

    def _like(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        key = (x.device, x.dtype)
        if key not in self._cast:
            self._cast[key] = (like(self.matrix_h, x), like(self.matrix_w, x))
        return self._cast[key]

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """A_h x A_w^T."""
        left, right = self._like(x)
        return left @ x @ right.mT

    def apply_transposed(self, y: torch.Tensor) -> torch.Tensor:
        """A_h^T y A_w."""
        left, right = self._like(y)
        return left.mT @ y @ right


class IdentityMatrices(AxisMatrices):
    """The identity on both axes, at no cost."""

    def __init__(self) -> None:
        super().__init__(torch.empty(0, 0), torch.empty(0, 0))

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def apply_transposed(self, y: torch.Tensor) -> torch.Tensor:
        return y


class SpectralForm(SpectralCalculus):
    """Thin singular value decomposition D = U diag(lambda) V^T with separable bases.

    Parameters
    ----------
    singular_values : torch.Tensor
        lambda_ij >= 0, (r_h, r_w) or (B, 1, r_h, r_w), float64; what is zero up to round-off is set to zero.
    u, v : AxisMatrices
        Orthonormal bases: `u.apply` maps (..., r_h, r_w) -> (..., h, w), `v.apply` -> (..., H, W);
        `apply_transposed` goes back.
    in_size : (height, width)
    """

    is_closed_form = True

    def __init__(self, singular_values: torch.Tensor, u: AxisMatrices, v: AxisMatrices, in_size: Size) -> None:
        largest = singular_values.amax(dim=(-2, -1), keepdim=True)
        self.singular_values = torch.where(singular_values > ZERO * largest, singular_values, 0.0)
        self.u, self.v, self.in_size = u, v, in_size
        full_rank = singular_values.shape[-2:].numel() == in_size[0] * in_size[1]
        self.has_null_space = not full_rank or bool((self.singular_values == 0).any())

    def largest_singular_value(self) -> float:
        return float(self.singular_values.max())

    def gain(self, g: SpectralFunction, y: torch.Tensor) -> torch.Tensor:
        return self.v.apply(like(g(self.singular_values), y) * self.u.apply_transposed(y))

    def covariance(self, f: SpectralFunction) -> Covariance:
        null = f(torch.zeros(1, 1, dtype=torch.float64))
        return SpectralCovariance(self.v, f(self.singular_values), null, self.in_size)


class IdentityForm(SpectralForm):
    """The identity: its only singular value is 1, so gains and variances are numbers, (), or (B, 1, 1, 1) per image."""

    def __init__(self, size: Size) -> None:
        super().__init__(torch.ones(size, dtype=torch.float64), IdentityMatrices(), IdentityMatrices(), size)
        self._one = torch.ones((), dtype=torch.float64)

    def gain(self, g: SpectralFunction, y: torch.Tensor) -> torch.Tensor:
        return like(g(self._one), y) * y

    def covariance(self, f: SpectralFunction) -> IsotropicCovariance:
        return IsotropicCovariance(f(self._one), self.in_size)


def has_closed_form(spectral: SpectralCalculus) -> TypeGuard[SpectralForm]:
    """Whether it is a `SpectralForm`, of whichever file (`ssd.publishing.self_contained`)."""
    return spectral.is_closed_form


@dataclass(frozen=True)
class IsotropicCovariance(Covariance):
    """variance I.

    Attributes
    ----------
    variance : torch.Tensor
        (), or (B, 1, 1, 1) per image; float64.
    size : (height, width)
    """

    variance: torch.Tensor
    size: Size

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return like(self.variance, x) * x

    def sqrt_apply(self, noise: torch.Tensor) -> torch.Tensor:
        return like(self.variance.sqrt(), noise) * noise

    def mean_variance(self) -> torch.Tensor:
        return self.variance


@dataclass(frozen=True)
class SpectralCovariance(Covariance):
    """V diag(v) V^T + null_variance (I - V V^T), in closed form.

    Attributes
    ----------
    basis : AxisMatrices
        V, orthonormal columns, (..., r_h, r_w) -> (..., H, W).
    variances : torch.Tensor
        v_ij >= 0, (r_h, r_w) or (B, 1, r_h, r_w); float64.
    null_variance : torch.Tensor
        The variance of the orthogonal complement, (1, 1) or (B, 1, 1, 1); float64.
    size : (height, width)
    """

    basis: AxisMatrices
    variances: torch.Tensor
    null_variance: torch.Tensor
    size: Size

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return self._power(x, 1.0)

    def sqrt_apply(self, noise: torch.Tensor) -> torch.Tensor:
        return self._power(noise, 0.5)

    def mean_variance(self) -> torch.Tensor:
        rank, pixels = self.variances.shape[-2:].numel(), math.prod(self.size)
        inside = self.variances.sum(dim=(-2, -1), keepdim=True)
        mean = (inside + self.null_variance * (pixels - rank)) / pixels
        return mean if mean.ndim > 2 else mean.squeeze()

    def _power(self, x: torch.Tensor, power: float) -> torch.Tensor:
        """cov^power x: scale everything as the null space, then correct inside the row space."""
        outside = self.null_variance**power
        inside = like(self.variances**power - outside, x)
        return like(outside, x) * x + self.basis.apply(inside * self.basis.apply_transposed(x))
