"""Downsampling by the name of a kernel."""

from __future__ import annotations

import math

from .kernels import KERNELS
from .linear import IdentityOperator, LinearOperator, SeparableOperator
from .sizes import Size


def resize_operator(in_size: Size, out_size: Size, kernel: str = "bilinear") -> LinearOperator:
    """Downsampling from `in_size` to `out_size`.

    Parameters
    ----------
    in_size, out_size : (height, width)
    kernel : {"bilinear", "area", "bicubic", "lanczos3", "dct"}
        `bilinear` is antialiased with align_corners=False, as in the paper.

    Examples
    --------
    >>> import torch
    >>> resize_operator((8, 8), (4, 4), "area").forward(torch.ones(1, 1, 8, 8)).shape
    torch.Size([1, 1, 4, 4])
    """
    if kernel not in KERNELS:
        raise ValueError(f"Unknown downsampling kernel {kernel!r}; choose one of {', '.join(KERNELS)}.")
    if tuple(in_size) == tuple(out_size):
        return IdentityOperator(in_size)
    matrix = KERNELS[kernel]
    rows = matrix(in_size[0], out_size[0])
    square = in_size[0] == in_size[1] and out_size[0] == out_size[1]
    return SeparableOperator(rows, rows if square else matrix(in_size[1], out_size[1]))


def scaled(operator: LinearOperator, factor: float) -> LinearOperator:
    """factor * D.

    Raises
    ------
    ValueError
        For a factor other than 1 of an operator that is not separable.
    """
    if factor == 1:
        return operator
    if not isinstance(operator, SeparableOperator):
        raise ValueError(f"Only separable operators can be scaled, got {operator!r}.")
    matrices, root = operator.matrices, math.sqrt(factor)
    rows = root * matrices.matrix_h
    return SeparableOperator(rows, rows if matrices.are_the_same else root * matrices.matrix_w)
