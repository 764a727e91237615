"""The variational bound of the likelihood: closed-form terms, in nats per image.

    -log p(x_0) <= KL(q(x_T-1 | x_0) | N(0, I)) + sum_t KL(q(x_s | x_t, x_0) | p(x_s | x_t)) - log p(x_0 | x_first)

p is theorem 3's posterior with the network's prediction x_hat in the place of D_s x_0. With e = D_s x_0 - x_hat and
SNR(t) = a_t^2 / sigma_t^2 its term for any s < t and any linear D is

    KL = 1/2 (SNR(s) |e|^2 - SNR(t) |D_st e|^2)                                                                    (a)

and where the variance of e is known, r_i in direction i, p can have it: with Delta_i = SNR(s) - lambda_i^2 SNR(t)

    KL = 1/2 sum_i [log(1 + Delta_i r_i) + Delta_i (e_i^2 - r_i) / (1 + Delta_i r_i)]                              (b)

In expectation (b) is at most (a). With one level (a) is the term of variational diffusion models (arXiv:2107.00630,
equation 13). Ours for several levels; docs/maths.md, section 5, has the derivation.

Shape letters: B images, C channels; H W the size of x_s; r_h r_w the ranks of D_st per axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..operators.cosine_filter import cosine_basis
from ..operators.linear import IdentityOperator
from ..operators.spectral import AxisMatrices, SpectralForm
from .diffusion import Timestep
from .scale_space import ScaleSpaceProcess


@dataclass(frozen=True)
class ErrorVariances:
    """r_i, the variances of e = D_s x_0 - x_hat in the directions of a step.

    Attributes
    ----------
    rows : torch.Tensor
        Within a level per cosine frequency, (H, W); at a change of the level per direction of the row space of D_st,
        (r_h, r_w), in the order of its singular values. (B, 1, ..) for per-image timesteps.
    null : torch.Tensor
        In the null space of D_st, (): one number.
    """

    rows: torch.Tensor
    null: torch.Tensor


def prior_kl(process: ScaleSpaceProcess, x_0: torch.Tensor, t: int) -> torch.Tensor:
    """KL(q(x_t | x_0) | N(0, I)) at the first timestep of a chain: (B, C, H, W) -> (B,), float64, nats."""
    mean, variance = process.signal(t) * process.degrade(x_0.to(torch.float64), t), process.sigma(t) ** 2
    return (mean.square() + (variance - 1 - variance.log())).flatten(1).sum(dim=1) / 2


def step_kl(
    process: ScaleSpaceProcess,
    error: torch.Tensor,
    s: Timestep,
    t: Timestep,
    variances: ErrorVariances | None = None,
) -> torch.Tensor:
    """KL(q(x_s | x_t, x_0) | p(x_s | x_t)) of the step from t to s >= 0.

    Parameters
    ----------
    process : ScaleSpaceProcess
    error : torch.Tensor
        e = D_s x_0 - x_hat, (B, C, H, W).
    s, t : int or torch.Tensor
        One of each, or (B,).
    variances : ErrorVariances, optional
        Of p's own uncertainty, equation (b). Default: none, equation (a).

    Returns
    -------
    torch.Tensor
        (B,), float64, nats.

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> process = SSDScheduler(sample_size=8, num_levels=2).process
    >>> step_kl(process, torch.zeros(3, 1, 8, 8), s=749, t=750)
    tensor([0., 0., 0.], dtype=torch.float64)
    """
    error = error.to(torch.float64)
    snr_s, snr_t = ((process.signal(i) / process.sigma(i)) ** 2 for i in (s, t))
    operator = process.operator(s, t)
    if variances is None:
        seen = snr_t * operator.forward(error).square()
        return ((snr_s * error.square()).flatten(1).sum(dim=1) - seen.flatten(1).sum(dim=1)) / 2
    spectral = operator.spectral
    if not isinstance(spectral, SpectralForm):
        raise ValueError(f"Variances of the prediction need an operator with a closed-form spectrum, got {operator!r}.")
    basis, lam = spectral.v, spectral.singular_values
    if isinstance(operator, IdentityOperator):
        basis, lam = cosine_basis(operator.in_size), torch.ones(operator.in_size, dtype=torch.float64)
    return _calibrated_kl(error, basis, snr_s - lam.square() * snr_t, snr_s, variances)


def _calibrated_kl(
    error: torch.Tensor, basis: AxisMatrices, delta: torch.Tensor, delta_null: torch.Tensor, variances: ErrorVariances
) -> torch.Tensor:
    """Equation (b), with Delta per direction of the basis and outside of it."""
    inside = basis.apply_transposed(error).square()  # (B, C, r_h, r_w)
    outside = error.square().flatten(1).sum(dim=1) - inside.flatten(1).sum(dim=1)
    directions = error.shape[1] * (error.shape[-2:].numel() - inside.shape[-2:].numel())  # of the null space
    rows = _term(delta, variances.rows, inside).flatten(1).sum(dim=1)
    return rows + _term(delta_null.flatten(), variances.null, outside, directions)


def _term(delta: torch.Tensor, r: torch.Tensor, squares: torch.Tensor, count: int = 1) -> torch.Tensor:
    """Equation (b) for `count` directions of one Delta and r, whose errors have this sum of squares."""
    gain = delta * r
    return (count * torch.log1p(gain) + delta * (squares - count * r) / (1 + gain)) / 2


def decoder_nll(x_0: torch.Tensor, x_hat: torch.Tensor, width: float, grey_levels: int = 256) -> torch.Tensor:
    """-log p(x_0 | x_hat): a Gaussian of standard deviation `width` around the prediction, in a bin for every grey
    level, the outer ones open.

    Parameters
    ----------
    x_0 : torch.Tensor
        Images of so many grey levels, evenly over [-1, 1], (B, C, H, W).
    x_hat : torch.Tensor
        The prediction of the last step, (B, C, H, W).
    width : float
        Positive.
    grey_levels : int
        At least 2; 256 are 8 bits.

    Returns
    -------
    torch.Tensor
        (B,), float64, nats.
    """
    x_0, x_hat = x_0.to(torch.float64), x_hat.to(torch.float64)
    half = 1 / (grey_levels - 1)  # of the distance of neighbours
    low = torch.where(x_0 < half - 1, -math.inf, (x_0 - half - x_hat) / width)
    high = torch.where(x_0 > 1 - half, math.inf, (x_0 + half - x_hat) / width)
    # log(Phi(high) - Phi(low)), in the lower tail, where no digits are lost.
    upper = low + high > 0
    low, high = torch.where(upper, -high, low), torch.where(upper, -low, high)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return -(log_high + torch.log1p(-torch.exp(log_low - log_high))).flatten(1).sum(dim=1)
