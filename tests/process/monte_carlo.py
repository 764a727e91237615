"""Samples of a chain against the mean and covariance that they should have."""

from __future__ import annotations

import torch

NUMBER = 20_000


def white(size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    return torch.randn(NUMBER, 1, *size, dtype=torch.float64, generator=generator)


def assert_distributed(x: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor) -> None:
    """Every mean and covariance of the pixels of x, (N, 1, h, w), within six standard deviations of its estimate."""
    pixels = x.flatten(1)
    variance = covariance.diagonal()
    error = (pixels.mean(dim=0) - mean.flatten()).abs()
    assert bool((error <= 6 * (variance / len(pixels)).sqrt() + 1e-12).all())
    found = torch.cov(pixels.T)
    # Var of an estimated covariance: (c_ij^2 + c_ii c_jj) / N
    spread = ((covariance.square() + variance[:, None] * variance) / len(pixels)).sqrt()
    assert bool(((found - covariance).abs() <= 6 * spread + 1e-12).all())
