"""Downsampling along one axis, as small float64 matrices.

A separable operator applies one such matrix to the rows and one to the columns. R is (out_length, in_length); in the
discrete cosine basis C, C_kn = sqrt((2 - [k = 0]) / N) cos(pi k (2 n + 1) / 2N), frequency k of an axis of N pixels has
pi k / N radians per pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F


def _interpolate_matrix(in_length: int, out_length: int, mode: str) -> torch.Tensor:
    """Antialiased resize along one axis, read off `F.interpolate` on the identity."""
    identity = torch.eye(in_length, dtype=torch.float64)[None, None]  # (1, 1, N, N): column j is the j-th unit image
    resized = F.interpolate(identity, size=(out_length, in_length), mode=mode, antialias=True, align_corners=False)
    return resized[0, 0]


def bilinear(in_length: int, out_length: int) -> torch.Tensor:
    """Antialiased bilinear (a triangle over both neighbours): the paper's kernel."""
    return _interpolate_matrix(in_length, out_length, "bilinear")


def bicubic(in_length: int, out_length: int) -> torch.Tensor:
    """Antialiased bicubic (a = -1/2, as Pillow's): sharper than bilinear, with small overshoots."""
    return _interpolate_matrix(in_length, out_length, "bicubic")


def lanczos3(in_length: int, out_length: int) -> torch.Tensor:
    """Lanczos-windowed sinc with three lobes, weights normalised per output pixel (as Pillow's LANCZOS)."""
    scale = in_length / out_length
    centre = (torch.arange(out_length, dtype=torch.float64)[:, None] + 0.5) * scale
    x = (torch.arange(in_length, dtype=torch.float64) + 0.5 - centre) / scale
    weights = torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), 0.0)
    return weights / weights.sum(dim=1, keepdim=True)


def area(in_length: int, out_length: int) -> torch.Tensor:
    """Mean over blocks: up to scale the orthogonal Haar projection. Needs a whole reduction factor."""
    if in_length % out_length:
        raise ValueError(f"The area kernel needs a whole reduction factor, got {in_length} -> {out_length}.")
    factor = in_length // out_length
    return torch.eye(out_length, dtype=torch.float64).repeat_interleave(factor, dim=1) / factor


def dct(in_length: int, out_length: int) -> torch.Tensor:
    """Ideal low pass: keep the lowest `out_length` cosine frequencies. All singular values are equal."""
    scale = math.sqrt(out_length / in_length)  # a constant image keeps its value
    return scale * dct_matrix(out_length).T @ dct_matrix(in_length)[:out_length]


KERNELS: dict[str, Callable[[int, int], torch.Tensor]] = {
    kernel.__name__: kernel for kernel in (bilinear, area, bicubic, lanczos3, dct)
}


def dct_matrix(length: int) -> torch.Tensor:
    """The orthonormal DCT-II C, (N, N), float64: rows are frequencies, C C^T = I."""
    k = torch.arange(length, dtype=torch.float64)[:, None]
    n = torch.arange(length, dtype=torch.float64)
    c = torch.cos(math.pi * k * (2 * n + 1) / (2 * length)) * math.sqrt(2 / length)
    c[0] /= math.sqrt(2)
    return c
