"""Second-order sampling: every step uses the prediction as it will be in the middle of the step.

Shape letters: B batch, C channels; H W the size of x_s, h w the size of x_t; u > t > s are timesteps of a chain.

In direction i of D = D_st = U diag(lambda) V^T the state x_t observes (V^T D_s x_0)_i with the log-SNR
l_t + log lambda_i, where l = log(a / sigma). A step to s raises it by h_i = h - log lambda_i, h = l_s - l_t, and the
eta-family is the exponential integrator of that coordinate, e^{-h_i} = sigma_s c lambda_i / sigma_t. Of first order it
holds the prediction x_hat fixed; of second order it takes it at the middle of the step, extrapolated from an earlier
prediction x_hat_u of D_t x_0:

    x_tilde = x_hat + V diag(w_i / lambda_i) U^T d,    d = D x_hat - x_hat_u,    w_i = min(h_i / (2 (l_t - l_u)), cap)

and 0 where x_t knows nothing (lambda_i = 0). Then x_s is drawn by `posterior` with x_tilde in the place of x_hat. Ours;
the derivation is in docs/maths.md, section 4. The three rules of that page are this one:

    (a) within a level D = I, the cap is 1/2, and u is the step before;
    (b) where the level changes the cap is 3/2, and u lies far enough back (`_anchor`);
    (c) after a change at u, l_t - l_u is h_j of that step, per direction of its row space; its null space counts 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from .log_snr import half_log_snr, level_offset
from .scale_space import ScaleSpaceProcess

LARGEST_WEIGHT = 0.5
"""The cap within a level: extrapolation over no more than the last difference, as for equal steps."""

LARGEST_WEIGHT_AT_CHANGE = 1.5
"""The cap where the level changes, whose step is longer than those before."""

LARGEST_SLOPE = 0.75
"""Where the level changes, the weight that an earlier prediction may get: a nearer one would be extrapolated far, and
its errors with it. In 100 steps a perfect network has a distance of 0.0064 so, and of 0.028 with the nearest one."""

SMALLEST_SINGULAR_VALUE = 1e-3
"""Directions with less are taken for the null space: x_t knows next to nothing there."""


def earlier_timesteps(process: ScaleSpaceProcess, chain: Sequence[int]) -> dict[int, int]:
    """For every step of a chain the timestep u of the prediction that it extrapolates from.

    Parameters
    ----------
    process : ScaleSpaceProcess
    chain : sequence of int
        Timesteps, descending; the step from the last one to the clean image is added.

    Returns
    -------
    dict
        t -> u. Steps of first order are not there: the first, the last (to s = -1, where the prediction is the result),
        and a change from a level that the chain has only just entered.

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> earlier_timesteps(SSDScheduler(sample_size=16, num_levels=2).process, [999, 878, 750, 673, 0])
    {878: 999, 750: 878, 673: 750}
    """
    found: dict[int, int | None] = {}
    for index, (t, s) in enumerate(pairwise(chain[1:]), start=1):
        changes = process.level(s) != process.level(t)
        found[t] = _anchor(process, chain[:index], t, s) if changes else chain[index - 1]
    return {t: u for t, u in found.items() if u is not None}


def _anchor(process: ScaleSpaceProcess, before: Sequence[int], t: int, s: int) -> int | None:
    """Rule (b): of the earlier timesteps of the level of t the latest with a small slope, or else the oldest."""
    of_level = [u for u in before if process.level(u) == process.level(t)]
    offsets = [level_offset(process, process.level(i)) for i in (s, t)]
    rise = half_log_snr(process, s) - half_log_snr(process, t) + offsets[0] - offsets[1]
    for u in reversed(of_level):
        if rise / (2 * (half_log_snr(process, t) - half_log_snr(process, u))) <= LARGEST_SLOPE:
            return u
    return of_level[0] if of_level else None


def extrapolate(
    process: ScaleSpaceProcess, x_hat: torch.Tensor, x_hat_u: torch.Tensor, u: int, t: int, s: int
) -> torch.Tensor:
    """x_tilde, the prediction in the middle of the step from t to s.

    Parameters
    ----------
    process : ScaleSpaceProcess
    x_hat : torch.Tensor
        The prediction of D_s x_0 at t, (B, C, H, W).
    x_hat_u : torch.Tensor
        The prediction of D_t x_0 that was made at u, (B, C, h, w).
    u, t, s : int
        u > t > s >= 0.

    Returns
    -------
    torch.Tensor
        (B, C, H, W).
    """
    operator, changes = process.operator(s, t), process.level(s) != process.level(t)
    h, since = (half_log_snr(process, after) - half_log_snr(process, before) for after, before in ((s, t), (t, u)))
    d = operator.forward(x_hat) - x_hat_u
    if changes or process.level(u) == process.level(t):  # rules (b) and (a)
        cap = LARGEST_WEIGHT_AT_CHANGE if changes else LARGEST_WEIGHT

        def weight(lam: torch.Tensor) -> torch.Tensor:
            return _where_known(lam, ((h - lam.log()) / (2 * since)).clamp(max=cap) / lam)

        return x_hat + operator.spectral.gain(weight, d)

    def weight_of_row(lam: torch.Tensor) -> torch.Tensor:
        return _where_known(lam, (h / (2 * (since - lam.log()))).clamp(max=LARGEST_WEIGHT))

    rows = process.operator(t, u).spectral.covariance(weight_of_row)  # rule (c)
    return x_hat + operator.spectral.gain(lambda lam: _where_known(lam, 1 / lam), rows.apply(d))


def _where_known(lam: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return torch.where(lam >= SMALLEST_SINGULAR_VALUE, values, 0.0)
