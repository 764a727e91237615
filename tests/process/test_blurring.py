"""Blurring diffusion: the published step, dense conditioning, and the forward chain."""

import math
from itertools import pairwise

import pytest
import torch

from ssd.operators.kernels import dct_matrix
from ssd.process.blurring import NOISES, BlurringProcess

from .monte_carlo import NUMBER, assert_distributed, white

SIZE = (4, 6)


def images(seed: int, number: int = 2) -> torch.Tensor:
    return torch.randn(number, 1, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(noise: str = "isotropic", **settings) -> BlurringProcess:
    return BlurringProcess(SIZE, 100, blur_sigma_max=2.0, noise=noise, **settings)


def dense_covariance(process: BlurringProcess, t: int) -> torch.Tensor:
    cosines = torch.kron(dct_matrix(SIZE[0]), dct_matrix(SIZE[1]))
    return cosines.T @ torch.diag(process.variance(t).flatten()) @ cosines


def published_alpha_sigma(t: int) -> tuple[torch.Tensor, float]:
    """alpha and sigma at the time (t + 1) / 100, written out from the paper's appendix A."""
    time = (t + 1) / 100
    first = math.atan(math.exp(-5))
    log_snr = -2 * math.log(math.tan((math.atan(math.exp(5)) - first) * time + first))
    heat = (2.0 * math.sin(time * math.pi / 2) ** 2) ** 2 / 2
    squares = [[(math.pi * i / SIZE[0]) ** 2 + (math.pi * j / SIZE[1]) ** 2 for j in range(SIZE[1])] for i in range(4)]
    gain = torch.exp(-torch.tensor(squares, dtype=torch.float64) * heat) * (1 - 0.001) + 0.001
    return gain / math.sqrt(1 + math.exp(-log_snr)), 1 / math.sqrt(1 + math.exp(log_snr))


@pytest.mark.parametrize(("s", "t"), [(0, 1), (40, 41), (98, 99), (20, 60)])
def test_the_published_step(s: int, t: int) -> None:
    """Mean and variance of one step from a prediction of the noise, by the formulas of the paper's section 4.1."""
    process, x_t, noise = make(), images(0), images(1)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = published_alpha_sigma(s), published_alpha_sigma(t)
    ratio = alpha_t / alpha_s
    forward = sigma_t**2 - ratio**2 * sigma_s**2
    variance = 1 / (1 / sigma_s**2 + ratio**2 / forward)
    rows, columns = dct_matrix(SIZE[0]), dct_matrix(SIZE[1])
    u_t, u_noise = (rows @ x @ columns.T for x in (x_t, noise))
    mean = variance * (ratio / forward * u_t + (u_t - sigma_t * u_noise) / ratio / sigma_s**2)

    clean = process.clean_image("epsilon", noise, x_t, t, s)
    posterior = process.reverse(clean, x_t, s, t)
    torch.testing.assert_close(posterior.mean, rows.T @ mean @ columns, atol=1e-10, rtol=0)
    root = posterior.covariance.sqrt_apply(rows.T @ u_noise @ columns)
    torch.testing.assert_close(root, rows.T @ (variance.sqrt() * u_noise) @ columns, atol=1e-10, rtol=0)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("s", "t"), [(-1, 30), (0, 1), (50, 51), (10, 99)])
def test_posterior_is_dense_gaussian_conditioning(noise: str, s: int, t: int) -> None:
    process, x_0, x_t = make(noise), images(0), images(1)
    m = process.signal(t) / process.signal(s) * process.operator(s, t).to_dense()
    cov_s, cov_t = dense_covariance(process, s), dense_covariance(process, t)
    assert torch.linalg.eigvalsh(cov_t - m @ cov_s @ m.T).min() > 0  # theorem 1
    mu_s = (process.signal(s) * process.degrade(x_0, s)).flatten(1)
    gain = cov_s @ m.T @ torch.linalg.inv(cov_t)
    mean = mu_s + (x_t.flatten(1) - mu_s @ m.T) @ gain.T
    posterior = process.reverse(x_0, x_t, s, t)
    torch.testing.assert_close(posterior.mean.flatten(1), mean, atol=1e-10, rtol=0)
    torch.testing.assert_close(posterior.covariance.to_dense(), cov_s - gain @ m @ cov_s, atol=1e-10, rtol=0)
    assert posterior.is_deterministic == (s == -1)


@pytest.mark.parametrize("noise", NOISES)
def test_the_forward_chain_has_the_marginals(noise: str) -> None:
    """Theorem 1's transitions, one after the other, from one clean image; and back again."""
    process, x_0, generator = make(noise), images(0, 1), torch.Generator().manual_seed(0)
    chain = [-1, 0, 10, 30, 31, 70, 99]
    x = x_0.expand(NUMBER, -1, -1, -1)
    for s, t in pairwise(chain):
        m = process.signal(t) / process.signal(s) * process.operator(s, t).to_dense()
        step = dense_covariance(process, t) - m @ dense_covariance(process, s) @ m.T
        root = torch.linalg.cholesky(step)
        x = (x.flatten(1) @ m.T + white(SIZE, generator).flatten(1) @ root.T).view(-1, 1, *SIZE)
        assert_distributed(x, process.signal(t) * process.degrade(x_0, t), dense_covariance(process, t))
    for t, s in pairwise(chain[:0:-1]):
        x = process.reverse(x_0, x, s, t).sample(generator)
        assert_distributed(x, process.signal(s) * process.degrade(x_0, s), dense_covariance(process, s))


@pytest.mark.parametrize("noise", NOISES)
def test_states_and_predictions_agree(noise: str) -> None:
    process, x_0, white_noise = make(noise), images(0), images(1)
    for t in (torch.tensor([0, 50]), torch.tensor([99, 3])):
        x_t = process.marginal_sample(x_0, t, white_noise)
        assert torch.equal(process.network_target("epsilon", x_0, x_t, t, white_noise), white_noise)
        assert torch.equal(process.network_target("sample", x_0, x_t, t, white_noise), x_0)
        found = process.clean_image("epsilon", white_noise, x_t, t, t - 1)
        torch.testing.assert_close(found, x_0, atol=1e-8, rtol=0)  # high frequencies are amplified up to 1 / (a d)
        for image, one in enumerate(t.tolist()):
            alone = process.marginal_sample(x_0[image:][:1], one, white_noise[image:][:1])
            torch.testing.assert_close(x_t[image:][:1], alone, atol=1e-12, rtol=0)


def test_without_blur_it_is_ordinary_diffusion() -> None:
    process, x_0, noise = BlurringProcess(SIZE, 100, blur_sigma_max=0.0), images(0), images(1)
    expected = process.signal(60) * x_0 + process.sigma(60) * noise
    torch.testing.assert_close(process.marginal_sample(x_0, 60, noise), expected, atol=1e-12, rtol=0)


def test_misuse_is_explained() -> None:
    x = images(0)
    with pytest.raises(ValueError, match=r"eta must be 1, got 0\.5"):
        make().reverse(x, x, 3, 4, eta=0.5)
    with pytest.raises(ValueError, match="predicts epsilon, as published, or sample, got 'v_prediction'"):
        make().network_target("v_prediction", x, x, 3, x)
    with pytest.raises(ValueError, match="noise must be one of isotropic, variance_preserving, got 'white'"):
        make("white")
    with pytest.raises(ValueError, match=r"min_gain in \(0, 1\], got 2.0 and 0"):
        make(min_gain=0)
