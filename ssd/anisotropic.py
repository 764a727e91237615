"""Theorem 2: the posterior for marginals that are not isotropic, diagonal in the operator's singular bases.

    x_s | x_0 ~ N(mu_s, V diag(p) V^T + p_null (I - V V^T)),    x_t | x_0 ~ N(M mu_s, U diag(q) U^T),    M = c D

(arXiv:2603.08709, theorem 2.) An example is blurring diffusion as it was published (arXiv:2209.05557), whose noise has
a variance per cosine frequency: there D is a `Blur`, U = V is the cosine basis and nothing is lost.
"""

from __future__ import annotations

import torch

from .operators import LinearOperator
from .process import GaussianPosterior
from .spectral import SpectralCovariance, SpectralForm


def diagonal_posterior(
    operator: LinearOperator,
    c: float,
    mu_s: torch.Tensor,
    x_t: torch.Tensor,
    variances_s: torch.Tensor,
    variances_t: torch.Tensor,
    null_variance: float = 0.0,
) -> GaussianPosterior:
    """x_s | x_t, x_0 with mean mu_s + V diag(p c lambda / q) U^T (x_t - M mu_s) and variances p - (p c lambda)^2 / q.

    Parameters
    ----------
    operator : LinearOperator
        D, with a closed-form spectrum.
    c : float
        a_t / a_s, in (0, 1].
    mu_s : torch.Tensor
        a_s D_s x_0, (B, C, H, W).
    x_t : torch.Tensor
        (B, C, h, w).
    variances_s, variances_t : torch.Tensor
        p >= 0 and q > 0 per singular direction, (r_h, r_w), in the order of `operator.spectral.singular_values`.
    null_variance : float
        p_null, the variance of x_s in the null space of D; 0 where there is none.

    Raises
    ------
    ValueError
        When (c lambda)^2 p exceeds q somewhere: then there is no transition with these marginals (theorem 1).

    Examples
    --------
    >>> from ssd.operators import Blur
    >>> blur = Blur((4, 4), 1.0)
    >>> p, q = torch.full((4, 4), 0.1), torch.full((4, 4), 0.4)
    >>> posterior = diagonal_posterior(blur, 0.9, torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), p, q)
    >>> posterior.sample().shape
    torch.Size([1, 1, 4, 4])
    """
    spectral = operator.spectral
    if not isinstance(spectral, SpectralForm):
        raise ValueError(f"diagonal_posterior needs an operator with a closed-form spectrum, got {operator!r}.")
    p, q = variances_s.to(torch.float64), variances_t.to(torch.float64)
    m = c * spectral.singular_values
    if bool((m**2 * p > q * (1 + 1e-12)).any()):
        worst = int((m**2 * p / q).argmax())
        raise ValueError(
            f"No transition has these marginals: in singular direction {worst} (c lambda)^2 p = "
            f"{float((m**2 * p).flatten()[worst]):.6g} exceeds q = {float(q.flatten()[worst]):.6g}."
        )
    residual = x_t - c * operator.forward(mu_s)
    gain = (p * m / q).to(x_t)
    return GaussianPosterior(
        mean=mu_s + spectral.v.apply(gain * spectral.u.apply_transposed(residual)),
        covariance=SpectralCovariance(
            spectral.v, p - (p * m) ** 2 / q, torch.full((1, 1), null_variance, dtype=torch.float64), spectral.in_size
        ),
    )
