"""What a step of the sampler lacks: the spread of the images that fit x_t, which a predicted mean does not have.

A sampler draws x_s from the posterior at the mean of x_0. The images that x_t leaves possible have the covariance
R = Cov[D_s x_0 | x_t] around it, and by the law of total covariance, with M = (a_t / a_s) D_st,

    Cov[x_s | x_t] = Cov[x_s | x_t, x_0] + a_s^2 A R A^T,    A = I - (sigma_s^2 / sigma_t^2) M^T M

The sampler has the first term alone. The second is the missing covariance. Within a level A is of the order of beta,
and nothing is missing; at a level change A is the identity in the null space of D, and the spread there is missing
whole. Its largest variance, over that of the noise of x_s, is the missing variance

    m(t) = lambda_max(a_s^2 A R A^T) / sigma_s^2

A step whose noise has the missing covariance as well is exact for Gaussian images: it takes the marginal of x_t to that
of x_s. For any images R is that of the best denoiser's errors, averaged over x_t. Ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..process.scale_space import ScaleSpaceProcess


@dataclass(frozen=True)
class MissingVariance:
    """What the step from t to s = t - 1 lacks.

    Attributes
    ----------
    t : int
    largest : float
        m(t).
    share : float
        Of the whole variance of x_s given x_t, in [0, 1].
    spectrum : list of float
        All variances of the missing covariance over sigma_s^2, descending; the first is m(t).
    """

    t: int
    largest: float
    share: float
    spectrum: list[float]


def missing_covariance(
    process: ScaleSpaceProcess, residual: torch.Tensor, s: int, t: int, eta: float = 1.0
) -> torch.Tensor:
    """a_s^2 A R A^T: what noise of the covariance R on the prediction adds to x_s.

    Parameters
    ----------
    process : ScaleSpaceProcess
    residual : torch.Tensor
        R, (n_s, n_s), float64, such as `gaussian_data.residual_covariance`.
    s, t : int
        -1 <= s < t.
    eta : float
        Of the step, in [0, 1]; A is as above for 1.

    Returns
    -------
    torch.Tensor
        (n_s, n_s), float64.
    """
    basis = torch.eye(len(residual), dtype=torch.float64).view(-1, 1, *process.size(s))
    nothing = torch.zeros(len(residual), 1, *process.size(t), dtype=torch.float64)
    effect = process.posterior(basis, nothing, s, t, eta).mean.flatten(1)  # a_s A^T
    return effect.T @ residual @ effect


def missing_variance(process: ScaleSpaceProcess, residual: torch.Tensor, t: int) -> MissingVariance:
    """m(t), and its share of the variance, from the covariance R of the errors of D_s x_0, s = t - 1 >= 0."""
    s = t - 1
    missing = missing_covariance(process, residual, s, t)
    nothing = torch.zeros(1, 1, *process.size(s), dtype=torch.float64)
    state = torch.zeros(1, 1, *process.size(t), dtype=torch.float64)
    has = float(process.posterior(nothing, state, s, t).covariance.mean_variance()) * len(missing)
    lacks = float(missing.trace())
    spectrum = (torch.linalg.eigvalsh(missing).flip(0) / process.sigma(s) ** 2).tolist()
    return MissingVariance(t, spectrum[0], lacks / (lacks + has), spectrum)
