"""Linear operators on images, with adjoint and singular value decomposition.

Shape letters: B batch, C channels; H W the operator's input size, h w its output size; r_h r_w ranks per axis.

A separable operator acts on rows and columns by two small matrices,

    D x = R_h x R_w^T,    R_h = U_h diag(s_h) V_h^T,    R_w = U_w diag(s_w) V_w^T,

so its singular values are the products lambda_ij = s_h,i s_w,j, and its singular bases are U_h (x) U_w and
V_h (x) V_w: two tiny decompositions in float64 give everything in closed form (docs/maths.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

from .resolution_schedule import Size


class AxisMatrices:
    """A_h (x) A_w: one float64 matrix per axis, acting on images as A_h x A_w^T.

    Copies in the dtype and on the device of the images are made once and kept.
    """

    def __init__(self, matrix_h: torch.Tensor, matrix_w: torch.Tensor) -> None:
        self.matrix_h, self.matrix_w = matrix_h.to(torch.float64), matrix_w.to(torch.float64)
        self._cast: dict[tuple[torch.device, torch.dtype], tuple[torch.Tensor, torch.Tensor]] = {}

    def _like(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        key = (x.device, x.dtype)
        if key not in self._cast:
            self._cast[key] = (self.matrix_h.to(x), self.matrix_w.to(x))
        return self._cast[key]

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """A_h x A_w^T."""
        left, right = self._like(x)
        return left @ x @ right.T

    def apply_transposed(self, y: torch.Tensor) -> torch.Tensor:
        """A_h^T y A_w."""
        left, right = self._like(y)
        return left.T @ y @ right


class IdentityMatrices(AxisMatrices):
    """The identity on both axes, at no cost."""

    def __init__(self) -> None:
        super().__init__(torch.empty(0, 0), torch.empty(0, 0))

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def apply_transposed(self, y: torch.Tensor) -> torch.Tensor:
        return y


@dataclass(frozen=True)
class SpectralForm:
    """Thin singular value decomposition D = U diag(lambda) V^T of a linear operator on images.

    Attributes
    ----------
    singular_values : torch.Tensor
        lambda_ij >= 0, shape (r_h, r_w), float64.
    u, v : AxisMatrices
        Orthonormal singular bases: `u.apply` maps (..., r_h, r_w) -> (..., h, w), `v.apply` maps
        (..., r_h, r_w) -> (..., H, W); `apply_transposed` goes back.
    has_null_space : bool
        Whether some direction of the input is lost: rank below H W.
    """

    singular_values: torch.Tensor
    u: AxisMatrices
    v: AxisMatrices
    has_null_space: bool


class LinearOperator(ABC):
    """A linear map on single-channel images, applied to every channel of (..., H, W) alike.

    Attributes
    ----------
    in_size, out_size : (height, width)
    """

    in_size: Size
    out_size: Size

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """D x: (..., H, W) -> (..., h, w)."""

    @abstractmethod
    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """D^T y: (..., h, w) -> (..., H, W)."""

    @abstractmethod
    def compose(self, inner: LinearOperator) -> LinearOperator:
        """The operator x -> self(inner(x))."""

    @property
    @abstractmethod
    def spectral(self) -> SpectralForm:
        """The thin singular value decomposition, in float64, computed once."""

    def to_dense(self) -> torch.Tensor:
        """The matrix of the operator on flattened images: shape (h w, H W), float64. For tests and study."""
        height, width = self.in_size
        basis = torch.eye(height * width, dtype=torch.float64).view(-1, height, width)
        return self.forward(basis).flatten(1).T

    def _check(self, x: torch.Tensor, size: Size) -> None:
        if tuple(x.shape[-2:]) != tuple(size):
            raise ValueError(f"The operator takes images of {size[0]} x {size[1]}, got {tuple(x.shape)}.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_size} -> {self.out_size})"


class IdentityOperator(LinearOperator):
    """D = I on images of `size`: no change of resolution (DDPM)."""

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

    @cached_property
    def spectral(self) -> SpectralForm:
        ones = torch.ones(self.in_size, dtype=torch.float64)
        return SpectralForm(ones, IdentityMatrices(), IdentityMatrices(), has_null_space=False)


class SeparableOperator(LinearOperator):
    """D x = R_h x R_w^T for 1-D matrices R_h (h, H) and R_w (w, W), kept in float64."""

    def __init__(self, matrix_h: torch.Tensor, matrix_w: torch.Tensor) -> None:
        self.matrices = AxisMatrices(matrix_h, matrix_w)
        self.in_size = (matrix_h.shape[1], matrix_w.shape[1])
        self.out_size = (matrix_h.shape[0], matrix_w.shape[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.in_size)
        return self.matrices.apply(x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.out_size)
        return self.matrices.apply_transposed(y)

    def compose(self, inner: LinearOperator) -> LinearOperator:
        if isinstance(inner, IdentityOperator):
            return self
        if not isinstance(inner, SeparableOperator):
            raise TypeError(f"A separable operator composes with separable operators, got {inner!r}.")
        outer, first = self.matrices, inner.matrices
        return SeparableOperator(outer.matrix_h @ first.matrix_h, outer.matrix_w @ first.matrix_w)

    @cached_property
    def spectral(self) -> SpectralForm:
        u_h, s_h, vt_h = torch.linalg.svd(self.matrices.matrix_h, full_matrices=False)
        u_w, s_w, vt_w = torch.linalg.svd(self.matrices.matrix_w, full_matrices=False)
        singular_values = torch.outer(s_h, s_w)
        # What is zero up to round-off is zero: the posterior treats the null space apart.
        singular_values[singular_values <= 1e-13 * singular_values.max()] = 0
        rank = int((singular_values > 0).sum())
        return SpectralForm(
            singular_values,
            AxisMatrices(u_h, u_w),
            AxisMatrices(vt_h.T, vt_w.T),
            has_null_space=rank < self.in_size[0] * self.in_size[1],
        )


def _bilinear_matrix(in_length: int, out_length: int) -> torch.Tensor:
    """Antialiased bilinear resize along one axis, read off `F.interpolate` on the identity."""
    columns = torch.eye(in_length, dtype=torch.float64)[None, None]  # (1, 1, H, H), one image per column
    resized = F.interpolate(columns, size=(out_length, in_length), mode="bilinear", antialias=True, align_corners=False)
    return resized[0, 0]


def _area_matrix(in_length: int, out_length: int) -> torch.Tensor:
    """Mean over blocks: up to scale the orthogonal Haar projection. Needs a whole reduction factor."""
    if in_length % out_length:
        raise ValueError(f"The area kernel needs a whole reduction factor, got {in_length} -> {out_length}.")
    factor = in_length // out_length
    return torch.eye(out_length, dtype=torch.float64).repeat_interleave(factor, dim=1) / factor


KERNELS = {"bilinear": _bilinear_matrix, "area": _area_matrix}


def resize_operator(in_size: Size, out_size: Size, kernel: str = "bilinear") -> LinearOperator:
    """Downsampling from `in_size` to `out_size` by one of `KERNELS`.

    Parameters
    ----------
    in_size, out_size : (height, width)
    kernel : {"bilinear", "area"}
        `bilinear` is antialiased with align_corners=False, as in the paper.

    Examples
    --------
    >>> resize_operator((8, 8), (4, 4), "area").forward(torch.ones(1, 1, 8, 8)).shape
    torch.Size([1, 1, 4, 4])
    """
    if kernel not in KERNELS:
        raise ValueError(f"Unknown downsampling kernel {kernel!r}; choose one of {', '.join(KERNELS)}.")
    if tuple(in_size) == tuple(out_size):
        return IdentityOperator(in_size)
    matrix = KERNELS[kernel]
    return SeparableOperator(matrix(in_size[0], out_size[0]), matrix(in_size[1], out_size[1]))
