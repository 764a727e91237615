"""Linear operators on images: the degradations of the process.

Shape letters: B batch, C channels; H W the operator's input size, h w its output size.

A separable operator acts on rows and columns by two small matrices,

    D x = R_h x R_w^T,    R_h = U_h diag(s_h) V_h^T,    R_w = U_w diag(s_w) V_w^T,

so its singular values are the products lambda_ij = s_h,i s_w,j, and its singular bases are U_h (x) U_w and
V_h (x) V_w: two tiny decompositions in float64 give everything in closed form (docs/maths.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch

from .lanczos import KrylovForm
from .sizes import Size
from .spectral import AxisMatrices, IdentityForm, SpectralCalculus, SpectralForm, outer


class LinearOperator(ABC):
    """A linear map on single-channel images, applied to every channel of (..., H, W) alike.

    Attributes
    ----------
    in_size, out_size : (height, width)
    """

    in_size: Size
    out_size: Size
    is_identity = False
    matrices: AxisMatrices | None = None
    """R_h and R_w where D x = R_h x R_w^T."""

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """D x: (..., H, W) -> (..., h, w)."""

    @abstractmethod
    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """D^T y: (..., h, w) -> (..., H, W)."""

    @property
    @abstractmethod
    def spectral(self) -> SpectralCalculus:
        """Functions of the operator's singular values, for covariances and gains."""

    def gain_bound(self) -> float:
        """An upper bound of the largest singular value, at little cost where there is one; else the value itself."""
        return self.spectral.largest_singular_value()

    def compose(self, inner: LinearOperator) -> LinearOperator:
        """The operator x -> self(inner(x))."""
        if inner.is_identity:
            return self
        return ComposedOperator(self, inner)

    def to_dense(self) -> torch.Tensor:
        """The matrix on flattened images: (h w, H W), float64. For tests and study."""
        height, width = self.in_size
        basis = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
        return self.forward(basis).flatten(1).T

    def _check(self, x: torch.Tensor, size: Size) -> None:
        if tuple(x.shape[-2:]) != tuple(size):
            raise ValueError(f"The operator takes images of {size[0]} x {size[1]}, got {tuple(x.shape)}.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_size} -> {self.out_size})"


class IdentityOperator(LinearOperator):
    """D = I on images of `size`: no degradation but noise (DDPM)."""

    is_identity = True

    def __init__(self, size: Size) -> None:
        self.in_size = self.out_size = (size[0], size[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.in_size)
        return x

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.out_size)
        return y

    def compose(self, inner: LinearOperator) -> LinearOperator:
        return inner

    def gain_bound(self) -> float:
        return 1.0

    @cached_property
    def spectral(self) -> IdentityForm:
        return IdentityForm(self.in_size)


class SeparableOperator(LinearOperator):
    """D x = R_h x R_w^T for 1-D matrices.

    Parameters
    ----------
    matrix_h, matrix_w : torch.Tensor
        R_h (h, H) and R_w (w, W), or (B, 1, ..) for one operator per image; kept in float64.
    """

    matrices: AxisMatrices

    def __init__(self, matrix_h: torch.Tensor, matrix_w: torch.Tensor) -> None:
        self.matrices = AxisMatrices(matrix_h, matrix_w)
        self.in_size = (matrix_h.shape[-1], matrix_w.shape[-1])
        self.out_size = (matrix_h.shape[-2], matrix_w.shape[-2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.in_size)
        return self.matrices.apply(x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.out_size)
        return self.matrices.apply_transposed(y)

    def compose(self, inner: LinearOperator) -> LinearOperator:
        if inner.matrices is not None:
            outer, first = self.matrices, inner.matrices
            rows = outer.matrix_h @ first.matrix_h
            square = outer.are_the_same and first.are_the_same
            return SeparableOperator(rows, rows if square else outer.matrix_w @ first.matrix_w)
        return super().compose(inner)

    def gain_bound(self) -> float:
        """Per axis sqrt(|R|_1 |R|_inf), the largest sums of absolute values of columns and rows (Schur's test)."""

        def of_axis(matrix: torch.Tensor) -> float:
            return float((matrix.abs().sum(dim=-2).max() * matrix.abs().sum(dim=-1).max()).sqrt())

        return of_axis(self.matrices.matrix_h) * of_axis(self.matrices.matrix_w)

    @cached_property
    def spectral(self) -> SpectralForm:
        u_h, s_h, vt_h = torch.linalg.svd(self.matrices.matrix_h, full_matrices=False)
        if self.matrices.are_the_same:
            u_w, s_w, vt_w = u_h, s_h, vt_h
        else:
            u_w, s_w, vt_w = torch.linalg.svd(self.matrices.matrix_w, full_matrices=False)
        return SpectralForm(outer(s_h, s_w), AxisMatrices(u_h, u_w), AxisMatrices(vt_h.mT, vt_w.mT), self.in_size)


class ImplicitOperator(LinearOperator):
    """Any linear function of images; its adjoint by vector-Jacobian product, its spectrum by Lanczos.

    Parameters
    ----------
    function : callable
        Linear, differentiable by torch, (N, 1, H, W) -> (N, 1, h, w), in the dtype of its input.
    in_size : (height, width)
    num_iterations : int
        Lanczos iterations per application of a covariance or gain.

    Raises
    ------
    ValueError
        When the function is not linear on two random images.

    Examples
    --------
    >>> flip = ImplicitOperator(lambda x: x.flip(-1), (4, 4))
    >>> bool((flip.adjoint(torch.eye(4)[None, None]) == torch.eye(4).flip(-1)).all())
    True
    """

    def __init__(
        self, function: Callable[[torch.Tensor], torch.Tensor], in_size: Size, num_iterations: int = 40
    ) -> None:
        self._function = function
        self.in_size = (in_size[0], in_size[1])
        x, y = torch.randn(2, 1, 1, *in_size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        image = function(x)
        self.out_size = (image.shape[-2], image.shape[-1])
        if not torch.allclose(function(2 * x - 3 * y), 2 * image - 3 * function(y), rtol=1e-8, atol=1e-8):
            raise ValueError("ImplicitOperator needs a linear function: f(2 x - 3 y) is not 2 f(x) - 3 f(y).")
        self._num_iterations = num_iterations

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.in_size)
        return self._function(x.reshape(-1, 1, *self.in_size)).view(*x.shape[:-2], *self.out_size)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.out_size)
        flat = y.reshape(-1, 1, *self.out_size)
        # Under inference mode torch 2.11 returns zeros here, without an error.
        with torch.inference_mode(False), torch.enable_grad():
            transpose = torch.func.vjp(self._function, flat.new_zeros(len(flat), 1, *self.in_size))[1]
            return transpose(flat.clone())[0].view(*y.shape[:-2], *self.in_size)

    @cached_property
    def spectral(self) -> KrylovForm:
        return KrylovForm(self, self._num_iterations)


class ComposedOperator(LinearOperator):
    """outer(inner(x)) for operators whose product has no closed form; its spectrum by Lanczos."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator, num_iterations: int = 40) -> None:
        if inner.out_size != outer.in_size:
            raise ValueError(f"Cannot compose {outer!r} with {inner!r}: the sizes differ.")
        self.outer, self.inner = outer, inner
        self.in_size, self.out_size = inner.in_size, outer.out_size
        self._num_iterations = num_iterations

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    @cached_property
    def spectral(self) -> KrylovForm:
        return KrylovForm(self, self._num_iterations)
