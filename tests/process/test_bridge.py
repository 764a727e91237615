"""Multi-resolution bridges: rows 7 and 8 of the table in docs/bridges.md, and the posterior in the Haar basis."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ssd.operators import Blur, ComposedOperator, ImplicitOperator, SeparableOperator, haar, resize_operator
from ssd.process import NoiseSchedule, ResolutionSchedule, ScaleSpaceProcess, make_betas, pyramid
from ssd.process.bridge import check, haar_posterior, natural_extension

EXACT = {"rtol": 0, "atol": 1e-10}


def white(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(kernel: str = "area", num_timesteps: int = 1000, num_levels: int = 3, **changes) -> ScaleSpaceProcess:
    """The paper's process; fewer timesteps have larger betas, to end in as much noise."""
    betas = make_betas(num_timesteps=num_timesteps, start=0.1 / num_timesteps, end=20 / num_timesteps)
    resolution = ResolutionSchedule.from_curve(pyramid(16, num_levels), num_timesteps)
    return ScaleSpaceProcess(NoiseSchedule.from_betas(betas), resolution, kernel, **changes)


def haar_order(size: tuple[int, int], coarse: tuple[int, int]) -> torch.Tensor:
    """The orthonormal Haar basis as rows, those of the functions of size `coarse` first."""
    pixels, levels = math.prod(size), (size[0] // coarse[0]).bit_length() - 1
    basis = torch.eye(pixels, dtype=torch.float64).view(-1, *size)
    columns = [band.flatten(1) for band in haar.subbands(haar.analysis(basis, levels) * pixels**0.5, levels).values()]
    return torch.cat(columns, dim=1).T


OPERATORS = {
    "blur": Blur((4, 4), 1.0),
    "matrix": SeparableOperator(white(4, 4), white(4, 4, seed=1)),
    "unequal sides": SeparableOperator(white(4, 4), white(2, 2, seed=1)),
    "function": ImplicitOperator(lambda x: 2 * x + x.flip(-1), (4, 4)),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("doublings", [0, 1, 2])
def test_natural_extension_is_block_diagonal(name: str, doublings: int) -> None:
    """Row 7, theorem 1: the matrix of the operator for coarse coefficients, the identity on details."""
    operator = OPERATORS[name]
    (height, width), coarse = operator.in_size, math.prod(operator.in_size)
    extension = natural_extension(operator, (height << doublings, width << doublings))
    dense, basis = extension.to_dense(), haar_order(extension.in_size, operator.in_size)
    matrix = basis @ dense @ basis.T
    torch.testing.assert_close(matrix[:coarse, :coarse], operator.to_dense(), **EXACT)
    identity = torch.eye(len(matrix), dtype=torch.float64)
    torch.testing.assert_close(matrix[coarse:], identity[coarse:], **EXACT)
    torch.testing.assert_close(matrix[:, coarse:], identity[:, coarse:], **EXACT)
    columns = extension.adjoint(torch.eye(len(dense), dtype=torch.float64).view(-1, 1, *extension.in_size))
    torch.testing.assert_close(columns.flatten(1), dense, **EXACT)


def test_an_extension_is_an_operator_like_others() -> None:
    extension = natural_extension(Blur((4, 4), 1.0), (8, 8))
    image = white(2, 3, 8, 8)
    covariance = extension.spectral.covariance(lambda lam: 1 + lam**2)
    dense = extension.to_dense()
    expected = image.flatten(2) @ (torch.eye(64, dtype=torch.float64) + dense.T @ dense)
    torch.testing.assert_close(covariance.apply(image).flatten(2), expected, rtol=0, atol=1e-8)
    composed = extension.compose(Blur((8, 8), 1.0))
    assert isinstance(composed, ComposedOperator)


@pytest.mark.parametrize(
    ("operator", "full", "message"),
    [
        (resize_operator((8, 8), (4, 4), "area"), (8, 8), "Only operators that keep the size"),
        (Blur((4, 4), 1.0), (12, 12), "is not"),
        (Blur((4, 4), 1.0), (8, 16), "is not"),
        (Blur((4, 4), 1.0), (2, 2), "is not"),
    ],
)
def test_extensions_that_do_not_exist(operator, full, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        natural_extension(operator, full)


def test_the_area_kernel_makes_a_bridge() -> None:
    """Row 8; states as functions have no details, and x_t sees the projection of the image."""
    process = make()
    report = check(process)
    assert report.is_bridge
    assert report.nested <= 1e-10
    assert report.outside <= 1e-10
    assert report.start_size == (4, 4)  # not the constant 0
    assert not report.is_from_a_point_mass
    assert report.start_std == pytest.approx(1, abs=1e-4)
    assert process.resolution.level_changes == (555, 889)
    images = white(3, 1, 16, 16)
    for t, level in ((554, 0), (555, 1), (888, 1), (889, 2), (999, 2)):
        assert process.level(t) == level
        mean = process.signal(t) * haar.pool(images, level)
        state = process.marginal_sample(images, t, torch.zeros_like(mean))
        torch.testing.assert_close(state, mean, **EXACT)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos3", "dct"])
def test_other_kernels_make_none(kernel: str) -> None:
    report = check(make(kernel))
    assert not report.is_bridge
    assert report.outside > 0.3
    assert report.nested <= 1e-10  # the sizes are not to blame


def test_other_processes() -> None:
    assert check(make(num_levels=1)).is_bridge  # DDPM: one level, the whole space
    assert check(make(level_gain=2.0)).is_bridge
    widths = torch.linspace(0, 2, 1001).roll(-1)
    assert not check(make(blur_widths=widths)).is_bridge  # the blur looks into neighbouring pixels
    resolution = ResolutionSchedule.from_curve([(16, 16), (15, 15)], 1000)
    gradual = check(ScaleSpaceProcess(NoiseSchedule.from_betas(make_betas()), resolution))
    assert not gradual.is_bridge
    assert gradual.nested > 0.5
    resolution = ResolutionSchedule.from_switches(pyramid(16, 2), 4, [2])
    coarse_steps = check(ScaleSpaceProcess(NoiseSchedule.from_betas(torch.full((4,), 0.4)), resolution, "area"))
    assert not coarse_steps.is_bridge  # no continuity to speak of
    assert coarse_steps.outside <= 1e-10


def test_steps_within_a_level_vanish_and_jumps_stay() -> None:
    """The figures of the continuous limit: T^-0.6 to T^-0.8, while jumps stay."""
    reports = [check(make(num_timesteps=n)) for n in (250, 500, 1000, 2000)]
    steps = [report.largest_step for report in reports]
    assert steps == pytest.approx([0.01346, 0.00776, 0.00483, 0.00318], abs=1e-5)
    for coarse, fine in itertools.pairwise(steps):
        assert 0.5 < math.log2(coarse / fine) < 0.9
    for report in reports:
        assert report.jumps == pytest.approx(reports[0].jumps, rel=0.01)


def test_jumps_are_the_distance_of_the_noise_in_the_haar_basis() -> None:
    process = make()
    for t, jump, details in zip((555, 889), check(process).jumps, (0.848, 0.866)):
        sigma_s, sigma_t = float(process.sigma(t - 1)), float(process.sigma(t))
        n = math.prod(process.size(t - 1))
        before = torch.full((n,), sigma_s / n**0.5, dtype=torch.float64)  # per coefficient, norm mean(c^2)
        after = torch.zeros(n, dtype=torch.float64)
        after[: n // 4] = sigma_t / (n // 4) ** 0.5
        assert jump == pytest.approx(float((before - after).norm()), abs=1e-12)
        assert float((before - after)[n // 4 :].norm()) == pytest.approx(details, abs=2e-3)  # they count images, too


@pytest.mark.parametrize("gain", [1.0, 1.5])
@pytest.mark.parametrize("t", [555, 889])
def test_posterior_at_a_level_change_in_the_haar_basis(t: int, gain: float) -> None:
    process = make(level_gain=gain)
    size = process.size(t - 1)
    x_0, x_t = white(2, 3, *size), white(2, 3, *process.size(t), seed=1)
    expected, found = process.posterior(x_0, x_t, t - 1, t), haar_posterior(process, x_0, x_t, t)
    torch.testing.assert_close(found.mean, expected.mean, **EXACT)
    torch.testing.assert_close(haar.pool(found.detail_mean), torch.zeros_like(x_t), **EXACT)
    basis = haar_order(size, process.size(t))
    variances = torch.full((len(basis),), float(found.detail_std) ** 2, dtype=torch.float64)
    variances[: len(basis) // 4] = found.coarse_std**2
    torch.testing.assert_close(basis @ expected.covariance.to_dense() @ basis.T, torch.diag(variances), **EXACT)


def test_details_enter_a_level_with_all_of_its_noise() -> None:
    """Where a hierarchical VAE enters with none."""
    process = make()
    found = [
        haar_posterior(process, white(1, 1, *process.size(t - 1)), white(1, 1, *process.size(t)), t) for t in (555, 889)
    ]
    assert float(found[0].detail_std) == pytest.approx(0.978, abs=1e-3)
    assert float(found[1].detail_std) == pytest.approx(0.99983, abs=1e-5)
    assert all(float(posterior.coarse_std) < float(posterior.detail_std) for posterior in found)


def test_the_haar_posterior_of_another_kernel_is_another() -> None:
    """The negative control: with a bilinear kernel coefficients are not independent, and details are seen."""
    process = make("bilinear")
    x_0, x_t = white(1, 1, 16, 16), white(1, 1, 8, 8, seed=1)
    posterior, found = process.posterior(x_0, x_t, 554, 555), haar_posterior(process, x_0, x_t, 555)
    assert float((posterior.mean - found.mean).norm() / found.mean.norm()) > 0.01
    basis = haar_order((16, 16), (8, 8))
    covariance = basis @ posterior.covariance.to_dense() @ basis.T
    assert float((covariance - torch.diag(covariance.diagonal())).abs().max()) > 0.01


def test_haar_posterior_refuses_other_steps() -> None:
    with pytest.raises(ValueError, match="needs a timestep at which images are halved, got t=556"):
        haar_posterior(make(), white(1, 1, 8, 8), white(1, 1, 8, 8), 556)
