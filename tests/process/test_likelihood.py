"""The terms of the bound against dense Gaussians, numerical integration, and what they must be in expectation."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from ssd.operators.kernels import dct_matrix
from ssd.process.likelihood import ErrorVariances, decoder_nll, prior_kl, step_kl
from ssd.scheduling_ssd import SSDScheduler

STEPS = [(400, 500), (554, 555), (300, 600), (800, 900), (100, 950)]


def process(**settings):
    return SSDScheduler(**{"sample_size": 8, "num_levels": 3, **settings}).process


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("s", "t"), STEPS)
def test_a_step_is_the_kl_of_two_posteriors(s, t, kernel):
    """Equation (a) against torch's dense Gaussians: q has D_s x_0, p the prediction."""
    chosen = process(downsample_kernel=kernel)
    x_0, x_t = draw(2, 1, 8, 8), draw(2, 1, *chosen.size(t), seed=1)
    truth, prediction = chosen.degrade(x_0, s), draw(2, 1, *chosen.size(s), seed=2)
    q, p = (chosen.posterior(clean, x_t, s, t) for clean in (truth, prediction))
    expected = [
        kl_divergence(*(MultivariateNormal(g.mean[i].flatten(), g.covariance.to_dense()) for g in (q, p)))
        for i in range(2)
    ]
    torch.testing.assert_close(step_kl(chosen, truth - prediction, s, t), torch.stack(expected), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("s", "t"), STEPS)
def test_a_calibrated_step_is_the_kl_to_the_wider_posterior(s, t):
    """Equation (b): p's prediction has a covariance, which the mean map carries into x_s."""
    chosen = process()
    x_0, x_t = draw(2, 1, 8, 8), draw(2, 1, *chosen.size(t), seed=1)
    truth, prediction = chosen.degrade(x_0, s), draw(2, 1, *chosen.size(s), seed=2)
    variances, residual = made_up_variances(chosen, s, t)
    q, p = (chosen.posterior(clean, x_t, s, t) for clean in (truth, prediction))
    n_s = residual.shape[0]
    basis = torch.eye(n_s, dtype=torch.float64).view(n_s, 1, *chosen.size(s))
    effect = chosen.posterior(basis, torch.zeros(n_s, 1, *chosen.size(t)).double(), s, t).mean.flatten(1)
    own = q.covariance.to_dense()
    expected = [
        kl_divergence(
            MultivariateNormal(q.mean[i].flatten(), own),
            MultivariateNormal(p.mean[i].flatten(), own + effect.T @ residual @ effect),
        )
        for i in range(2)
    ]
    found = step_kl(chosen, truth - prediction, s, t, variances)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=1e-10)


def made_up_variances(chosen, s, t):
    """Variances of the error, and the dense covariance that they stand for."""
    size = chosen.size(s)
    if chosen.level(s) == chosen.level(t):
        rows = draw(*size, seed=3).exp()
        basis = torch.kron(dct_matrix(size[0]), dct_matrix(size[1]))
        return ErrorVariances(rows, torch.zeros(()).double()), basis.T @ (rows.view(-1, 1) * basis)
    spectral = chosen.operator(s, t).spectral
    rows, null = draw(*spectral.singular_values.shape, seed=3).exp(), torch.tensor(0.7, dtype=torch.float64)
    directions = spectral.v.apply(torch.eye(rows.numel()).double().view(-1, *rows.shape)).flatten(1)
    outside = torch.eye(size[0] * size[1]).double() - directions.T @ directions
    return ErrorVariances(rows, null), directions.T @ (rows.view(-1, 1) * directions) + null * outside


def test_one_level_is_the_term_of_variational_diffusion_models():
    chosen = process(num_levels=1)
    error = draw(3, 3, 8, 8)
    snr = chosen.noise.snr
    expected = (snr[200] - snr[300]) / 2 * error.square().flatten(1).sum(dim=1)  # arXiv:2107.00630, equation 13
    torch.testing.assert_close(step_kl(chosen, error, 200, 300), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("s", "t"), STEPS)
def test_steps_of_several_images_at_their_own_timesteps(s, t):
    chosen = process()
    error = draw(2, 3, *chosen.size(s))
    together = step_kl(chosen, error, torch.tensor([s, s]), torch.tensor([t, t]))
    torch.testing.assert_close(together, step_kl(chosen, error, s, t), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("s", "t"), STEPS)
def test_the_right_variances_never_cost(s, t):
    """In expectation (b) <= (a): the mean over errors of these variances, exact by one error per direction."""
    chosen = process()
    variances, residual = made_up_variances(chosen, s, t)
    values, vectors = torch.linalg.eigh(residual)
    errors = (values.sqrt() * vectors).T.reshape(-1, 1, *chosen.size(s))
    nothing = torch.zeros(1, 1, *chosen.size(s), dtype=torch.float64)

    def expected(given):  # KL is a constant and a quadratic form: a sum over directions is an expectation
        constant = step_kl(chosen, nothing, s, t, given)
        return float(constant + (step_kl(chosen, errors, s, t, given) - constant).sum())

    assert 0 < expected(variances) <= expected(None)


def test_prior_is_the_kl_to_white_noise():
    chosen, x_0 = process(), draw(2, 3, 8, 8).clamp(-1, 1)
    mean, sigma = chosen.signal(999) * chosen.degrade(x_0, 999), chosen.sigma(999)
    expected = kl_divergence(Normal(mean, sigma), Normal(torch.zeros(()).double(), 1.0)).flatten(1).sum(dim=1)
    torch.testing.assert_close(prior_kl(chosen, x_0, 999), expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("levels", [2, 17, 32, 256])
@pytest.mark.parametrize("width", [0.001, 0.02, 1.0])
def test_the_decoder_is_a_distribution_over_the_grey_levels(width, levels):
    values = torch.linspace(-1, 1, levels, dtype=torch.float64).view(-1, 1, 1, 1)
    for centre in (-1.3, -0.2, 0.0031, 1.0):
        total = torch.logsumexp(-decoder_nll(values, torch.full_like(values, centre), width, levels), dim=0)
        assert abs(float(total)) < 1e-10


def test_the_decoder_far_from_the_truth_is_finite():
    """In the far tail the integral over a bin is about its density times its length."""
    nll = float(decoder_nll(torch.full((1, 1, 1, 1), -1 + 2 * 200 / 255), torch.full((1, 1, 1, 1), -0.9), 0.01))
    assert math.isfinite(nll)
    edge = (200 * 2 / 255 - 1 - 1 / 255 + 0.9) / 0.01  # of the bin, nearest to the centre: Phi(-x) ~ phi(x) / x
    assert nll == pytest.approx(edge**2 / 2 + math.log(edge) + math.log(2 * math.pi) / 2, rel=1e-4)


def test_variances_need_a_closed_form():
    from ssd.operators.linear import ImplicitOperator

    chosen = SSDScheduler(sample_size=8, num_levels=2).process
    chosen._operators[(0, 1)] = ImplicitOperator(lambda x: x[..., ::2, ::2], (8, 8))
    with pytest.raises(ValueError, match=r"needs? an operator with a closed-form spectrum"):
        step_kl(chosen, torch.zeros(1, 1, 8, 8), 700, 800, ErrorVariances(torch.ones(4, 4), torch.ones(())))
