"""The posterior x_s | x_t, x_0 in closed form: theorem 3 with its eta-family, and theorem 2.

Shape letters: B batch, C channels; H W the size of x_s, h w the size of x_t, r_h r_w ranks per axis. D = U diag(lambda)
V^T is the operator from x_s to x_t, M = c D with c = a_t / a_s, and mu_s = a_s D_s x_0. Theorems: arXiv:2603.08709; the
eta-family is ours (docs/maths.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from diffusers.utils.torch_utils import randn_tensor

from ..operators.linear import LinearOperator
from ..operators.placing import like
from ..operators.spectral import Covariance, IsotropicCovariance, SpectralCovariance, SpectralForm


class NoiseSource(Protocol):
    """Where all random numbers of a chain come from, in the place of generators."""

    def white_noise(self, images: torch.Tensor) -> torch.Tensor:
        """Standard normal numbers, one for every pixel of `images`, (B, C, h, w), in their dtype."""


Generators = torch.Generator | Sequence[torch.Generator] | NoiseSource | None
"""One generator for the whole batch, one per image in a list or a tuple, a source of noise, or the global generator."""


def white_noise(images: torch.Tensor, generator: Generators) -> torch.Tensor:
    """Independent standard normal numbers, one for every pixel of `images`."""
    source = getattr(generator, "white_noise", None)
    if source is not None:
        return source(images)
    generator = list(generator) if isinstance(generator, tuple) else generator  # diffusers knows lists only
    return randn_tensor(tuple(images.shape), generator=generator, device=images.device, dtype=images.dtype)


@dataclass(frozen=True)
class GaussianPosterior:
    """The Gaussian x_s | x_t, x_0.

    Attributes
    ----------
    mean : torch.Tensor
        Shape (B, C, H, W), in the dtype of x_t.
    covariance : Covariance
        The covariance of every channel; channels are independent.
    is_deterministic : bool
        Whether the covariance vanishes, so that sampling needs no noise.
    """

    mean: torch.Tensor
    covariance: Covariance
    is_deterministic: bool = False

    def sample(self, generator: Generators = None) -> torch.Tensor:
        """Draw x_s: shape (B, C, H, W)."""
        if self.is_deterministic:
            return self.mean
        return self.mean + self.covariance.sqrt_apply(white_noise(self.mean, generator))

    def with_white_noise(self, variance: torch.Tensor) -> GaussianPosterior:
        """The same mean with the covariance variance I; `variance` has shape () or (B, 1, 1, 1)."""
        return replace(self, covariance=IsotropicCovariance(variance, self.covariance.size), is_deterministic=False)

    def isotropic(self) -> GaussianPosterior:
        """The same mean with white noise of the same variance, averaged over pixels (the paper's ablation)."""
        return self if self.is_deterministic else self.with_white_noise(self.covariance.mean_variance())


def eta_posterior(
    operator: LinearOperator,
    c: torch.Tensor,
    mu_s: torch.Tensor,
    x_t: torch.Tensor,
    sigma_s: torch.Tensor,
    sigma_t: torch.Tensor,
    eta: float = 1.0,
) -> GaussianPosterior:
    """Theorem 3 (eta = 1) and its eta-family, for isotropic marginals of x_s and x_t.

        mean = mu_s + K (x_t - M mu_s),    cov = sigma_s^2 I - sigma_t^2 K K^T
        K = V diag(k) U^T,    k_i = sqrt(sigma_s^2 - v_i) / sigma_t
        v_i = eta^2 sigma_s^2 (1 - (sigma_s c lambda_i / sigma_t)^2) where lambda_i > 0, else sigma_s^2

    Parameters
    ----------
    operator : LinearOperator
        D.
    c, sigma_s, sigma_t : torch.Tensor
        float64, shape (), or (B, 1, 1, 1) for per-image timesteps; sigma_s = 0 is the clean image.
    mu_s : torch.Tensor
        (B, C, H, W).
    x_t : torch.Tensor
        (B, C, h, w).
    eta : float
        In [0, 1]; every eta keeps the marginal of x_s.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1], got {eta}.")

    def kept(lam: torch.Tensor) -> torch.Tensor:
        """k_i^2 sigma_t^2 / sigma_s^2: the share of sigma_s^2 that comes from x_t, without cancellation."""
        return torch.where(lam > 0, (1 - eta**2) + (eta * sigma_s * c * lam / sigma_t) ** 2, 0.0)

    def gain(lam: torch.Tensor) -> torch.Tensor:
        """k_i, the gain of the residual in direction i."""
        return sigma_s / sigma_t * kept(lam).sqrt()

    def variance(lam: torch.Tensor) -> torch.Tensor:
        """v_i, the variance that is left in direction i."""
        return sigma_s**2 * (1 - kept(lam))

    residual = x_t - like(c, x_t) * operator.forward(mu_s)
    spectral = operator.spectral
    return GaussianPosterior(
        mean=mu_s + spectral.gain(gain, residual),
        covariance=spectral.covariance(variance),
        is_deterministic=not bool(sigma_s.any()) or (eta == 0 and not spectral.has_null_space),
    )


def diagonal_posterior(
    operator: LinearOperator,
    c: float | torch.Tensor,
    mu_s: torch.Tensor,
    x_t: torch.Tensor,
    variances_s: torch.Tensor,
    variances_t: torch.Tensor,
    null_variance: float = 0.0,
) -> GaussianPosterior:
    """Theorem 2 for marginals that are diagonal in the operator's singular bases (arXiv:2603.08709).

        x_s | x_0 ~ N(mu_s, V diag(p) V^T + p_null (I - V V^T)),    x_t | x_0 ~ N(M mu_s, U diag(q) U^T),    M = c D

    An example is blurring diffusion (`ssd.process.blurring`), whose steps add noise with a variance per cosine
    frequency: there U = V is the cosine basis, and nothing is lost.

    x_s | x_t, x_0 has the mean mu_s + V diag(p c lambda / q) U^T (x_t - M mu_s) and the
    variances p - (p c lambda)^2 / q.

    Parameters
    ----------
    operator : LinearOperator
        D, with a closed-form spectrum.
    c : float or torch.Tensor
        a_t / a_s, in (0, 1]; (B, 1, 1, 1) for per-image timesteps.
    mu_s : torch.Tensor
        a_s D_s x_0, (B, C, H, W).
    x_t : torch.Tensor
        (B, C, h, w).
    variances_s, variances_t : torch.Tensor
        p >= 0 and q > 0 per singular direction, (r_h, r_w) or (B, 1, r_h, r_w), in the order of
        `operator.spectral.singular_values`.
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
    residual = x_t - like(torch.as_tensor(c, dtype=torch.float64), x_t) * operator.forward(mu_s)
    gain = like(p * m / q, x_t)
    return GaussianPosterior(
        mean=mu_s + spectral.v.apply(gain * spectral.u.apply_transposed(residual)),
        covariance=SpectralCovariance(
            spectral.v, p - (p * m) ** 2 / q, torch.full((1, 1), null_variance, dtype=torch.float64), spectral.in_size
        ),
        is_deterministic=not bool(p.any()) and not null_variance,
    )
