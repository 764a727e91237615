"""What the information of noisy images depends on: their covariance, their spectrum at every level, their contrast.

Shape letters: C channels; H W the full resolution, D = H W; h w the size of a level.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ...commands.errors import UsageError
from ...operators.cosine_filter import cosine_basis
from ...operators.linear import IdentityOperator, LinearOperator

LARGEST_COVARIANCE = 64 * 64
"""Pixels of an image whose covariance is kept, of 128 MiB; of larger images only the spectra."""

NUM_CONTRASTS = 1 << 14
"""Bins of the histogram of |x_0|, of width 6e-5."""


@dataclass(frozen=True)
class ImageStatistics:
    """Second moments of images about their mean image, averaged over channels: of one channel, in all of float64.

    Attributes
    ----------
    count : int
        The number of images.
    operators : tuple of LinearOperator
        D_l, from the full resolution to every level, finest (the identity) first.
    spectra : tuple of torch.Tensor
        Per level the variance P_k of every orthonormal cosine coefficient of D_l x_0, (h, w).
    covariance : torch.Tensor or None
        C, (D, D); None above `LARGEST_COVARIANCE` pixels.
    contrast : torch.Tensor
        The share of values |x_0| in equal bins of [0, 1], (`NUM_CONTRASTS`,).
    """

    count: int
    operators: tuple[LinearOperator, ...]
    spectra: tuple[torch.Tensor, ...]
    covariance: torch.Tensor | None
    contrast: torch.Tensor

    @cached_property
    def level_covariances(self) -> tuple[torch.Tensor, ...]:
        """D_l C D_l^T of every level; a ValueError where C was not kept."""
        if self.covariance is None:
            raise ValueError(f"The covariance of images of more than {LARGEST_COVARIANCE} pixels is not kept.")
        size, full = self.operators[0].in_size, self.covariance
        half = [operator.forward(full.view(-1, *size)).flatten(1) for operator in self.operators]  # C D_l^T
        return tuple(
            operator.forward(rows.T.reshape(-1, *size)).flatten(1).T for operator, rows in zip(self.operators, half)
        )


def level_operators(steps: Sequence[LinearOperator]) -> list[LinearOperator]:
    """D_l of all levels, from the operators between neighbouring ones, of which there is at least one."""
    operators: list[LinearOperator] = [IdentityOperator(steps[0].in_size)]
    for step in steps:
        operators.append(step.compose(operators[-1]))
    return operators


def image_statistics(images: Iterable[torch.Tensor], operators: Sequence[LinearOperator]) -> ImageStatistics:
    """Measure images, one after the other.

    Parameters
    ----------
    images : iterable of torch.Tensor
        (C, H, W) each, in [-1, 1]; at least two.
    operators : sequence of LinearOperator
        D_l, from the full resolution to every level, finest (the identity) first, see `level_operators`.

    Raises
    ------
    UsageError
        When there are fewer than two images, or all are the same.

    Examples
    --------
    >>> from ssd.operators.resize import resize_operator
    >>> noise = torch.randn(2000, 1, 4, 4, generator=torch.Generator().manual_seed(0)) / 4
    >>> found = image_statistics(noise, level_operators([resize_operator((4, 4), (2, 2))]))
    >>> [round(float(spectrum.mean()), 3) for spectrum in found.spectra], found.covariance.shape
    ([0.063, 0.01], torch.Size([16, 16]))
    """
    bases = [cosine_basis(operator.out_size) for operator in operators]
    sums = [_Moments() for _ in operators]
    contrast = torch.zeros(NUM_CONTRASTS, dtype=torch.float64)
    outer = _Outer() if math.prod(operators[0].in_size) <= LARGEST_COVARIANCE else None
    for image in images:
        pixels = image.to(torch.float64)
        for level, operator, basis in zip(sums, operators, bases):
            level.add(basis.apply_transposed(operator.forward(pixels)))
        if outer is not None:
            outer.add(pixels.flatten(1))
        contrast += torch.histc(pixels.abs().clamp(max=1), NUM_CONTRASTS, 0, 1)
    if sums[0].count < 2 or not sums[0].varies():
        raise UsageError(f"Images that differ are needed to measure how they vary, and these {sums[0].count} do not.")
    return ImageStatistics(
        sums[0].count,
        tuple(operators),
        tuple(level.variance() for level in sums),
        None if outer is None else outer.covariance(),
        contrast / contrast.sum(),
    )


class _Moments:
    """Mean and variance of every number of (C, h, w), averaged over channels."""

    def __init__(self) -> None:
        self.count, self._sum, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, values: torch.Tensor) -> None:
        self.count, self._sum, self._squares = self.count + 1, self._sum + values, self._squares + values.square()

    def varies(self) -> bool:
        """Whether the variance is more than what rounding leaves of equal numbers."""
        return bool(self.variance().sum() > 1e-12 * torch.as_tensor(self._squares).sum() / self.count)

    def variance(self) -> torch.Tensor:
        """(h, w)."""
        count = max(self.count, 1)
        variance = self._squares / count - (self._sum / count).square()
        return variance.clamp(min=0).mean(dim=0) if variance.ndim else variance


class _Outer:
    """The covariance of vectors (C, D), averaged over channels; products of many at once."""

    BATCH = 256

    def __init__(self) -> None:
        self._waiting: list[torch.Tensor] = []
        self._products: torch.Tensor | float = 0.0
        self._sum: torch.Tensor | float = 0.0
        self._count = 0

    def add(self, vectors: torch.Tensor) -> None:
        self._waiting.append(vectors)
        if len(self._waiting) == self.BATCH:
            self._multiply()

    def covariance(self) -> torch.Tensor:
        """(D, D)."""
        self._multiply()
        mean = torch.as_tensor(self._sum) / self._count
        return torch.as_tensor(self._products) / (self._count * len(mean)) - mean.T @ mean / len(mean)

    def _multiply(self) -> None:
        if self._waiting:
            stacked = torch.stack(self._waiting)
            rows = stacked.flatten(0, 1)
            self._products = self._products + rows.T @ rows
            self._sum, self._count = self._sum + stacked.sum(dim=0), self._count + len(stacked)
            self._waiting = []
