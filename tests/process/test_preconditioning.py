"""The linear estimate, its error, and that a preconditioned network which says nothing is that estimate."""

from __future__ import annotations

import pytest
import torch

from ssd.analysis.gaussian_data import degrade_rows, power_law_covariance
from ssd.analysis.moments import data_moments
from ssd.operators.spectral import SpectralForm
from ssd.process.losses import training_pair
from ssd.process.preconditioning import DataMoments, linear_error, linear_estimate
from ssd.scheduling_ssd import SSDScheduler

from ..operators.operator_cases import OPERATORS

CLOSED = [name for name, operator in OPERATORS.items() if isinstance(operator.spectral, SpectralForm)]
MOMENTS = {"mean": [0.3, 0.2, -0.1], "variances": [0.4, 0.3, 0.25]}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scheduler(**more):
    usual = {"sample_size": 16, "num_levels": 3, "prediction_type": "preconditioned", "data_moments": MOMENTS}
    return SSDScheduler(**usual | more)


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("angle", [0.1, 0.8, 1.5])
def test_the_linear_estimate_is_dense_conditioning(name, angle) -> None:
    """y | x_t for y ~ N(0, rho I): rho a D^T (a^2 rho D D^T + sigma^2 I)^-1 x_t, and its covariance."""
    operator, rho = OPERATORS[name], torch.tensor(0.3, dtype=torch.float64)
    a, sigma = torch.tensor(angle, dtype=torch.float64).cos(), torch.tensor(angle, dtype=torch.float64).sin()
    dense = operator.to_dense()
    seen = a**2 * rho * dense @ dense.T + sigma**2 * torch.eye(len(dense), dtype=torch.float64)
    gain = torch.linalg.solve(seen, rho * a * dense).T
    x = draw(2, 3, *operator.out_size)
    found = linear_estimate(operator, rho, a, sigma, x)
    torch.testing.assert_close(found.flatten(2), x.flatten(2) @ gain.T, atol=1e-10, rtol=0)
    errors = rho * torch.eye(dense.shape[1], dtype=torch.float64) - gain @ (rho * a * dense)
    torch.testing.assert_close(linear_error(operator, rho, a, sigma), errors.diagonal().mean(), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("kappa", [0.0, 3.0, 1e3])
def test_the_error_of_a_handed_over_estimate(name, kappa) -> None:
    """The trace of (1 - G a D) rho (1 - G a D)^T + sigma^2 G G^T."""
    operator = OPERATORS[name]
    rho, a, sigma = torch.tensor([0.3, 0.8, 0.6], dtype=torch.float64)
    pixels = operator.out_size[0] * operator.out_size[1]
    white = torch.eye(pixels, dtype=torch.float64).view(pixels, 1, *operator.out_size)
    gain = linear_estimate(operator, rho, a, sigma, white, kappa).flatten(1).T
    kept = torch.eye(len(gain), dtype=torch.float64) - a * gain @ operator.to_dense()
    expected = (rho * kept.square().sum() + sigma**2 * gain.square().sum()) / len(gain)
    torch.testing.assert_close(linear_error(operator, rho, a, sigma, kappa), expected, atol=1e-10, rtol=1e-10)


def test_who_predicts_is_handed_over_by_the_signal_to_noise_ratio() -> None:
    chosen = scheduler(num_levels=1, handover_snr=100.0, data_moments={"mean": [0.0], "variances": [0.25]})
    process, x_0 = chosen.process, draw(1, 1, 16, 16)
    for t, share in ((0, 1.0), (999, 0.0)):
        x_t = process.marginal_sample(x_0, t, torch.zeros_like(x_0))
        estimate = process.clean_image("preconditioned", torch.zeros_like(x_t), x_t, t, t - 1)
        torch.testing.assert_close(estimate, share * x_0, atol=0.01, rtol=0.06)
    assert float(process.output_scale("preconditioned", 999, 998)) == pytest.approx(0.5, rel=1e-3)  # sqrt(rho)


@pytest.mark.parametrize("gain", [1.0, 2.0])
@pytest.mark.parametrize("t", [0, 5, 100, 400, 554, 555, 700, 888, 889, 950, 999])
def test_a_network_that_says_nothing_is_no_worse_than_a_linear_filter(t, gain) -> None:
    """For images with any covariance of these variances the error of the estimate is at most c_out^2."""
    process = scheduler(level_gain=gain, downsample_kernel="area").process
    images = power_law_covariance((16, 16))
    level = process.level(t - 1)
    of_the_image = images if level == 0 else _both_sides(process, images, process.resolution.level_starts[level])
    moments = DataMoments((0.0,), (1.0,) * level + (float(of_the_image.diagonal().mean()),) + (1.0,) * (2 - level))
    process.moments = moments
    operator = process.operator(process.resolution.level_starts[level], t)
    scaled = process.signal(t) * process.image_scale(t - 1)
    size, pixels = process.size(t - 1), len(of_the_image)
    white = torch.eye(process.size(t)[0] * process.size(t)[1], dtype=torch.float64)
    rho = torch.tensor(moments.variances[level], dtype=torch.float64)
    rows = linear_estimate(operator, rho, scaled, process.sigma(t), white.view(-1, 1, *process.size(t))).flatten(1)
    kept = torch.eye(pixels, dtype=torch.float64) - rows.T @ (scaled * operator.to_dense())
    error = (kept @ of_the_image @ kept.T).trace() + process.sigma(t) ** 2 * rows.square().sum()
    assert tuple(size) == tuple(operator.in_size)
    assert float(error / pixels / process.output_scale("preconditioned", t, t - 1) ** 2) <= 1 + 1e-9


def _both_sides(process, covariance, t):
    half = degrade_rows(process, covariance, t).T
    return degrade_rows(process, half, t) / process.image_scale(t) ** 2


@pytest.mark.parametrize("t", [[3, 400], [555, 555], [600, 800], [889, 889], [900, 999]])
def test_images_of_a_batch_have_their_own_timesteps(t) -> None:
    process, x_0, times = scheduler().process, draw(2, 3, 16, 16), torch.tensor(t)
    noise = draw(2, 3, *process.size(times))
    given, target = training_pair(process, x_0, times, noise, "preconditioned")
    for one, time in enumerate(t):
        alone = training_pair(process, x_0[one : one + 1], torch.tensor([time]), noise[one : one + 1], "preconditioned")
        torch.testing.assert_close(given[one : one + 1], alone[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(target[one : one + 1], alone[1], atol=1e-10, rtol=0)


def test_inputs_and_outputs_have_variance_one() -> None:
    """In the mean over images of these moments; so the network's work is the same at every noise."""
    chosen = scheduler(num_levels=1, data_moments={"mean": [0.0], "variances": [0.4]})
    process, x_0 = chosen.process, 0.4**0.5 * draw(200, 1, 16, 16)
    for t in (0, 100, 500, 999):
        times = torch.full((200,), t)
        given, target = training_pair(process, x_0, times, draw(200, 1, 16, 16, seed=1), "preconditioned")
        for values in (given, target):
            assert abs(float(values.square().mean()) - 1) < 4 * (2 / values.numel()) ** 0.5 * 1.5


def test_the_moments_of_images() -> None:
    process = scheduler().process
    images = 0.5 * draw(10, 3, 16, 16) + torch.tensor([0.3, 0.2, -0.1], dtype=torch.float64).view(3, 1, 1)
    found = data_moments(images, process)
    mean = images.mean(dim=(0, 2, 3))
    torch.testing.assert_close(torch.tensor(found.mean, dtype=torch.float64), mean)
    for level, variance in enumerate(found.variances):
        small = images if level == 0 else process.degrade(images, process.resolution.level_starts[level])
        expected = (small - mean.view(3, 1, 1)).square().mean()
        assert variance == pytest.approx(float(expected), rel=1e-9)


def test_images_that_teach_nothing() -> None:
    process = scheduler().process
    with pytest.raises(ValueError, match="one and the same colour"):
        data_moments(torch.zeros(2, 3, 16, 16), process)
    with pytest.raises(ValueError, match="no images to measure"):
        data_moments([], process)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "needs data_moments"),
        ({"mean": [0.0]}, "must have mean and variances, got mean"),
        ({"mean": [0.0], "variances": [0.1]}, "one variance for each of the 3 levels, got 1"),
        ({"mean": [0.0], "variances": [0.1, 0.1, 0.0]}, "must be positive and finite"),
        ({"mean": "grey", "variances": [0.1, 0.1, 0.1]}, "mean must be a list of numbers, got 'grey'"),
    ],
)
def test_wrong_moments(given, message) -> None:
    with pytest.raises(ValueError, match=message):
        scheduler(data_moments=given)


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="of 3 channels, got images of 1: "):
        scheduler().process.network_input("preconditioned", torch.zeros(1, 1, 16, 16), torch.tensor([10]))
