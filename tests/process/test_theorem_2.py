"""Theorem 2 against dense Gaussian conditioning, for every operator with a closed-form spectrum."""

import pytest
import torch

from ssd.operators import Blur, ImplicitOperator, LinearOperator
from ssd.operators.spectral import SpectralForm
from ssd.process.noise import NoiseSchedule, make_betas
from ssd.process.posterior import diagonal_posterior

from ..operators.operator_cases import OPERATORS

CLOSED_FORM = {name: op for name, op in OPERATORS.items() if isinstance(op.spectral, SpectralForm)}


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense_basis(spectral: SpectralForm, name: str) -> torch.Tensor:
    """U or V as a matrix, (pixels, r_h r_w)."""
    rows, columns = spectral.singular_values.shape
    unit = torch.eye(rows * columns, dtype=torch.float64).view(-1, 1, rows, columns)
    return getattr(spectral, name).apply(unit).flatten(1).T


@pytest.mark.parametrize("operator", CLOSED_FORM.values(), ids=CLOSED_FORM.keys())
def test_posterior_is_dense_gaussian_conditioning(operator: LinearOperator) -> None:
    spectral, c, null = operator.spectral, 0.8, 0.7
    p, q = 0.2 + random(*spectral.singular_values.shape, seed=0), 1.5 + random(*spectral.singular_values.shape, seed=1)
    mu_s, x_t = random(2, 3, *operator.in_size, seed=2), random(2, 3, *operator.out_size, seed=3)
    posterior = diagonal_posterior(operator, c, mu_s, x_t, p, q, null)

    u, v = dense_basis(spectral, "u"), dense_basis(spectral, "v")
    m = c * operator.to_dense()
    complement = torch.eye(len(v), dtype=torch.float64) - v @ v.T
    cov_s = v @ torch.diag(p.flatten()) @ v.T + null * complement
    cov_t = u @ torch.diag(q.flatten()) @ u.T
    gain = cov_s @ m.T @ torch.linalg.pinv(cov_t)
    mean = mu_s.flatten(2) + (x_t.flatten(2) - mu_s.flatten(2) @ m.T) @ gain.T
    torch.testing.assert_close(posterior.mean.flatten(2), mean, atol=1e-10, rtol=0)
    torch.testing.assert_close(posterior.covariance.to_dense(), cov_s - gain @ m @ cov_s, atol=1e-10, rtol=0)


def test_isotropic_marginals_give_theorem_three() -> None:
    blur, noise = Blur((8, 8), 1.0), NoiseSchedule.from_betas(make_betas())
    sigma_s, sigma_t, c = noise.sigma[300], noise.sigma[600], float(noise.signal[600] / noise.signal[300])
    mu_s, x_t = random(1, 3, 8, 8, seed=0), random(1, 3, 8, 8, seed=1)
    ones = torch.ones(8, 8, dtype=torch.float64)
    posterior = diagonal_posterior(blur, c, mu_s, x_t, sigma_s**2 * ones, sigma_t**2 * ones)
    expected = mu_s + sigma_s**2 / sigma_t**2 * c * blur.adjoint(x_t - c * blur.forward(mu_s))
    torch.testing.assert_close(posterior.mean, expected, atol=1e-10, rtol=0)


def test_impossible_marginals_are_explained() -> None:
    zeros, ones = torch.zeros(1, 1, 4, 4), torch.ones(4, 4)
    with pytest.raises(ValueError, match=r"direction 0 \(c lambda\)\^2 p = 0.81 exceeds q = 0.5"):
        diagonal_posterior(Blur((4, 4), 1.0), 0.9, zeros, zeros, ones, 0.5 * ones)
    with pytest.raises(ValueError, match="closed-form spectrum"):
        diagonal_posterior(ImplicitOperator(lambda x: x, (4, 4)), 0.9, zeros, zeros, ones, ones)
