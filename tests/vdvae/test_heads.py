"""Likelihoods of pixels: probabilities that sum to 1, closed forms, samples that follow them, the published 5 bits."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from vdvae.heads import Head, make_head

GREY_HEADS = [
    *((name, levels) for name in ("logistic_mixture", "gaussian") for levels in (256, 32, 17, 2)),
    ("bernoulli", 2),
]
DOUBLE = torch.float64


def parameters_of(head: Head, seed: int = 0, scale: float = 1.5, number: int = 40) -> torch.Tensor:
    """(number, P, 1, 1); the log scales among them go from far below the width of a level to far above 1."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(number, head.num_parameters, 1, 1, generator=generator, dtype=DOUBLE)


def mixture_of(colours: int, levels: int, mixtures: int = 2, compatibility: str = "exact") -> Head:
    return make_head("logistic_mixture", colours, levels, 256 if compatibility == "published" else levels, mixtures,
                     compatibility)  # fmt: skip


def total_probability(head: Head, parameters: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The sum over all `images` (M, C, 1, 1) for every row of `parameters`."""
    rows = [head.log_prob(row.expand(len(images), -1, -1, -1), images).exp().sum() for row in parameters[:, None]]
    return torch.stack(rows)


def all_pixels(levels: int, channels: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(levels)] * channels).reshape(-1, channels, 1, 1)


@pytest.mark.parametrize("scale", [0.1, 1.5, 6.0])
@pytest.mark.parametrize(("name", "levels"), GREY_HEADS)
def test_the_probabilities_of_a_grey_pixel_sum_to_1(name: str, levels: int, scale: float) -> None:
    head = make_head(name, 1, levels, levels, num_mixtures=3)
    total = total_probability(head, parameters_of(head, scale=scale), all_pixels(levels, 1))
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-9)
    single = total_probability(head, parameters_of(head, scale=scale).float(), all_pixels(levels, 1))
    torch.testing.assert_close(single, torch.ones_like(single), rtol=0, atol=2e-5)  # 256 terms of float32


@pytest.mark.parametrize("levels", [32, 17])
@pytest.mark.parametrize("name", ["logistic_mixture", "gaussian"])
def test_the_probabilities_of_a_coloured_pixel_sum_to_1(name: str, levels: int) -> None:
    head = make_head(name, 3, levels, levels, num_mixtures=2)
    total = total_probability(head, parameters_of(head, number=3), all_pixels(levels, 3))
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-9)


def test_the_probabilities_of_a_coloured_pixel_of_256_levels_sum_to_1() -> None:
    """Summed over green and blue they are those of the red channel alone, whose sum is tested above."""
    colour, grey = mixture_of(3, 256), mixture_of(1, 256)
    parameters = parameters_of(colour, number=1)
    red_alone = torch.cat([parameters[:, :2], parameters[:, 2:6]], dim=1)  # logits; means and log scales of red
    rest = all_pixels(256, 2)
    for red in (0, 1, 130, 255):
        images = torch.cat([torch.full_like(rest[:, :1], red), rest], dim=1)
        expected = grey.log_prob(red_alone, torch.full((1, 1, 1, 1), red)).exp().sum()
        total = total_probability(colour, parameters, images)[0]
        torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-12)


def test_the_published_5_bits_are_not_normalised() -> None:
    """Intervals 2/31 wide that lie 8/127.5 apart: (2/31 * 127.5/8)^3 = 1.0871, 0.040 bits per dimension too good."""
    parameters = torch.zeros(1, 10, 1, 1, dtype=DOUBLE)
    parameters[:, [2, 5, 8]] = -3.0  # log scales: smooth over levels, and far from both ends
    sums = {
        compatibility: float(
            total_probability(mixture_of(3, 32, 1, compatibility), parameters, step * all_pixels(32, 3))[0]
        )
        for compatibility, step in (("published", 8), ("exact", 1))
    }
    assert sums["exact"] == pytest.approx(1, abs=1e-9)
    assert sums["published"] == pytest.approx((2 / 31 * 127.5 / 8) ** 3, abs=1e-4)
    assert round(sums["published"], 4) == 1.0871
    assert torch.log2(torch.tensor(sums["published"])).item() / 3 == pytest.approx(0.040, abs=5e-4)


def test_8_bits_of_the_published_likelihood_are_the_exact_ones_where_probabilities_are_not_tiny() -> None:
    published, exact = mixture_of(3, 256, 3, "published"), mixture_of(3, 256, 3)
    parameters = parameters_of(exact, scale=0.3)  # scales near 1: no interval below 1e-5
    images = torch.randint(256, (len(parameters), 3, 1, 1), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        published.log_prob(parameters, images), exact.log_prob(parameters, images), rtol=0, atol=1e-9
    )


def test_one_logistic_component_is_the_difference_of_two_sigmoids() -> None:
    head = mixture_of(1, 17, mixtures=1)
    mean, log_scale = torch.tensor(0.2, dtype=DOUBLE), torch.tensor(-1.5, dtype=DOUBLE)
    parameters = torch.stack([torch.zeros(()), mean, log_scale]).reshape(1, 3, 1, 1).expand(17, -1, -1, -1)
    edges = torch.cat([torch.tensor([-torch.inf]), (2 * torch.arange(16) + 1) / 16 - 1, torch.tensor([torch.inf])])
    expected = torch.sigmoid((edges.double() - mean) / log_scale.exp()).diff()
    torch.testing.assert_close(head.log_prob(parameters, all_pixels(17, 1)).exp().flatten(), expected)


def test_the_gaussian_head_against_the_normal_distribution() -> None:
    head = make_head("gaussian", 1, 17, 17, 1)
    parameters = torch.tensor([-0.3, -1.0], dtype=DOUBLE).reshape(1, 2, 1, 1)
    edges = torch.cat([torch.tensor([-torch.inf]), (2 * torch.arange(16) + 1) / 16 - 1, torch.tensor([torch.inf])])
    normal = Normal(torch.tensor(-0.3, dtype=DOUBLE), torch.tensor(-1.0, dtype=DOUBLE).exp(), validate_args=False)
    found = head.log_prob(parameters.expand(17, -1, -1, -1), all_pixels(17, 1)).exp().flatten()
    torch.testing.assert_close(found, normal.cdf(edges.double()).diff(), rtol=1e-9, atol=1e-12)


def test_the_bernoulli_head_against_the_bernoulli_distribution() -> None:
    head = make_head("bernoulli", 1, 2, 256, 1)
    logits = torch.linspace(-3, 3, 8, dtype=DOUBLE).reshape(1, 1, 1, 8)
    images = torch.tensor([0, 127, 128, 255, 0, 127, 128, 255]).reshape(1, 1, 1, 8)  # thresholded at half the range
    expected = Bernoulli(logits=logits).log_prob((images >= 128).double())
    torch.testing.assert_close(head.log_prob(logits, images), expected[:, 0])
    draws = head.sample(logits, torch.tensor([0.01, 0.99] * 4).reshape(1, 1, 1, 8))
    assert draws.unique().tolist() == [0, 255]


@pytest.mark.parametrize("name", ["logistic_mixture", "gaussian"])
@pytest.mark.parametrize("levels", [256, 17])
def test_extreme_parameters_give_finite_values_and_gradients(name: str, levels: int) -> None:
    """Far tails at the smallest scale, and scales so large that an interval has no mass in float32."""
    head = make_head(name, 1, levels, levels, num_mixtures=1)
    lead = [0.0] if name == "logistic_mixture" else []
    rows = [[*lead, mean, log_scale] for mean in (-30.0, 0.0, 30.0) for log_scale in (-20.0, 0.0, 40.0)]
    parameters = torch.tensor(rows)[..., None, None].requires_grad_()
    for level in (0, 1, levels // 2, levels - 1):
        log_prob = head.log_prob(parameters, torch.full((len(rows), 1, 1, 1), level))
        (gradient,) = torch.autograd.grad(log_prob.sum(), parameters)
        assert torch.isfinite(log_prob).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["logistic_mixture", "gaussian"])
def test_samples_follow_the_probabilities(name: str) -> None:
    """Of N evenly spaced uniform numbers, a level gets its probability up to 2 / N."""
    head, count = make_head(name, 1, 17, 17, num_mixtures=1), 4000
    parameters = torch.tensor([0.0, 0.4, -1.0] if name == "logistic_mixture" else [0.4, -1.0], dtype=DOUBLE)
    parameters = parameters.reshape(1, -1, 1, 1)
    grid = ((torch.arange(count, dtype=DOUBLE) + 0.5) / count).reshape(-1, 1, 1, 1)
    uniforms = grid.expand(-1, head.num_uniforms, -1, -1)  # the component's number does not matter: there is one
    draws = head.sample(parameters.expand(count, -1, -1, -1), uniforms)
    found = torch.bincount(draws.flatten(), minlength=17) / count
    expected = head.log_prob(parameters.expand(17, -1, -1, -1), all_pixels(17, 1)).exp().flatten()
    assert (found - expected).abs().max() <= 2 / count


def test_coloured_samples_follow_the_probabilities() -> None:
    """Green's number goes over a grid for every red number of a grid: a pair's share is exact up to 4 / N."""
    head, count = mixture_of(3, 5, mixtures=1), 300
    parameters = torch.tensor([0.0, 0.2, -1.0, 1.5, -0.1, -1.2, 0.7, 0.0, 9.0, -0.8], dtype=DOUBLE).reshape(1, 10, 1, 1)
    grid = (torch.arange(count, dtype=DOUBLE) + 0.5) / count
    uniforms = torch.full((count**2, 4, 1, 1), 0.5, dtype=DOUBLE)
    uniforms[:, 1:3, 0, 0] = torch.cartesian_prod(grid, grid)
    draws = head.sample(parameters.expand(len(uniforms), -1, -1, -1), uniforms)[..., 0, 0]
    found = torch.bincount(5 * draws[:, 0] + draws[:, 1], minlength=25) / count**2
    expected = head.log_prob(parameters.expand(125, -1, -1, -1), all_pixels(5, 3)).exp().reshape(25, 5).sum(dim=1)
    assert (found - expected).abs().max() <= 4 / count


def test_components_are_drawn_with_their_weights() -> None:
    """Three components that do not overlap; within 5 standard errors."""
    head, count = mixture_of(1, 17, mixtures=3), 20_000
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE)
    values = torch.cat([weights.log(), torch.tensor([-1.0, 0.0, 1.0]), torch.full((3,), -7.0)])
    uniforms = torch.rand(count, 4, 1, 1, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    draws = head.sample(values.reshape(1, -1, 1, 1).expand(count, -1, -1, -1), uniforms).flatten()
    shares = torch.stack([(draws == level).double().mean() for level in (0, 8, 16)])
    assert ((shares - weights).abs() <= 5 * (weights * (1 - weights) / count).sqrt()).all()


def test_published_samples_are_cut_off_and_exact_ones_are_rounded() -> None:
    parameters = torch.zeros(1, 10, 1, 1)
    parameters[:, [2, 5, 8]] = -20.0  # no spread
    parameters[:, [1, 4, 7], 0, 0] = torch.tensor([0.0, 100.8, 254.9]) / 127.5 - 1
    half = torch.full((1, 4, 1, 1), 0.5)
    assert mixture_of(3, 256, 1, "published").sample(parameters, half).flatten().tolist() == [0, 100, 254]
    assert mixture_of(3, 256, 1).sample(parameters, half).flatten().tolist() == [0, 101, 255]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("poisson", 3, 256, 256, 10), "likelihood must be one of logistic_mixture, bernoulli, gaussian"),
        (("logistic_mixture", 2, 256, 256, 10), "1 or 3 channels, got 2"),
        (("logistic_mixture", 3, 256, 256, 0), "num_mixtures must be at least 1"),
        (("bernoulli", 1, 17, 17, 1), "levels=2, got 17"),
        (("gaussian", 1, 17, 256, 1), "divide input_levels, got 17 and 256"),
        (("gaussian", 1, 1, 1, 1), "at least 2"),
        (("gaussian", 1, 256, 256, 1, "published"), "for logistic_mixture alone"),
        (("logistic_mixture", 3, 17, 17, 1, "published"), "levels of 256 or 32"),
        (("logistic_mixture", 3, 256, 256, 1, "old"), "likelihood_compat must be one of exact, published"),
    ],
)
def test_heads_that_do_not_exist(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_head(*arguments)
