"""The forward process from one state to a noisier one: theorem 1 (arXiv:2603.08709).

    x_t | x_s ~ N(M x_s, sigma_t^2 I - sigma_s^2 M M^T),    M = (a_t / a_s) D_st = c U diag(lambda) V^T

Its covariance is diagonal in U, the output's basis, where the posterior's is in V.
"""

from __future__ import annotations

import torch

from ..operators.placing import like
from ..operators.spectral import Covariance, IsotropicCovariance, SpectralCovariance, has_closed_form
from .posterior import GaussianPosterior
from .scale_space import ScaleSpaceProcess


def transition(process: ScaleSpaceProcess, x_s: torch.Tensor, s: int, t: int) -> GaussianPosterior:
    """The Gaussian of x_t, (B, C, h, w), given x_s, (B, C, H, W), for s < t.

    Raises
    ------
    ValueError
        For a process whose operators have no decomposition.

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> process = SSDScheduler(sample_size=16, num_levels=2).process
    >>> transition(process, torch.zeros(1, 3, 16, 16), 700, 800).sample().shape
    torch.Size([1, 3, 8, 8])
    """
    operator = process.operator(s, t)
    spectral = operator.spectral
    if not has_closed_form(spectral):
        raise ValueError(f"{operator!r} has no decomposition, so that the covariance of its transition is not known.")
    c, sigma_s, sigma_t = process.signal(t) / process.signal(s), process.sigma(s), process.sigma(t)

    def variance(lam: torch.Tensor) -> torch.Tensor:
        return (sigma_t.square() - (sigma_s * c * lam).square()).clamp(min=0)  # round-off where D keeps a direction

    one = torch.ones((), dtype=torch.float64)
    covariance: Covariance
    if operator.is_identity:
        covariance = IsotropicCovariance(variance(one), operator.out_size)
    else:
        covariance = SpectralCovariance(
            spectral.u, variance(spectral.singular_values), variance(0 * one).view(1, 1), operator.out_size
        )
    return GaussianPosterior(like(c, x_s) * operator.forward(x_s), covariance)
