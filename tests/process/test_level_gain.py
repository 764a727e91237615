"""Isometric levels: the theorems hold, networks predict ordinary images, and the coarsest level ends in noise."""

from __future__ import annotations

import pytest
import torch

from ssd.analysis.gaussian_data import power_law_covariance
from ssd.analysis.reverse_chain import Sampler, chain_distance
from ssd.evaluation.levels import LevelReduction
from ssd.process.likelihood import prior_kl
from ssd.process.log_snr import effective_half_log_snrs, level_offset
from ssd.process.losses import denoising_loss, training_pair
from ssd.process.predictions import PREDICTION_TYPES
from ssd.process.spacing import linspace_timesteps
from ssd.scheduling_ssd import SSDScheduler


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scheduler(**settings):
    given = {"sample_size": 16, "num_levels": 3, "level_gain": 2.0, **settings}
    moments = {"mean": [0.2, 0.1, 0.0], "variances": [0.4, 0.3, 0.2, 0.1, 0.1][: given["num_levels"]]}
    return SSDScheduler(**given, data_moments=moments)


def test_halving_is_nearly_an_orthonormal_projection():
    process = scheduler(downsample_kernel="area").process
    values = process.operator(-1, 999).spectral.singular_values
    torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-12)
    for level in range(3):
        assert abs(level_offset(process, level)) < 1e-12
    known = effective_half_log_snrs(process)
    (first, _) = process.required_timesteps
    assert known[first - 1] - known[first] < 0.01  # it is log 2 and more without the gain


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
def test_the_coarsest_level_ends_in_noise(levels):
    process = scheduler(sample_size=64, num_levels=levels).process
    white = torch.ones(1, 3, 64, 64, dtype=torch.float64)
    height, width = process.size(999)
    assert float(prior_kl(process, white, 999)) / (3 * height * width) < 1e-3  # of the smallest image


def test_the_marginal_follows_from_the_transitions():
    process = scheduler().process
    for s, t in ((300, 400), (554, 555), (100, 950)):
        torch.testing.assert_close(
            process.operator(s, t).to_dense() @ process.operator(-1, s).to_dense(), process.operator(-1, t).to_dense()
        )


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("t", [300, 600, 555, 950])
def test_networks_predict_ordinary_images(kind, t):
    """The target is an image of the usual range, and what it stands for is the process's D_s x_0."""
    chosen = scheduler()
    process, x_0 = chosen.process, draw(2, 3, 16, 16)
    noise = draw(2, 3, *process.size(t), seed=1)
    _, target = training_pair(process, x_0, torch.tensor([t, t]), noise, kind)
    x_t = process.marginal_sample(x_0, t, noise)
    clean = process.clean_image(kind, target, x_t, t, t - 1)
    torch.testing.assert_close(clean, process.target(x_0, t), rtol=0, atol=1e-9)
    torch.testing.assert_close(process.from_target(clean, t - 1), process.degrade(x_0, t - 1), rtol=0, atol=1e-9)
    plain = scheduler(level_gain=1.0).process
    torch.testing.assert_close(clean, plain.degrade(x_0, t - 1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("t", [300, 600, 950])
def test_the_loss_of_an_image_is_the_same_whatever_is_predicted(t):
    process, x_0, times = scheduler().process, draw(2, 3, 16, 16), torch.tensor([t, t])
    noise, wrong = draw(2, 3, *process.size(t), seed=1), draw(2, 3, *process.size(t), seed=2)
    x_t, losses = process.marginal_sample(x_0, t, noise), []
    for kind in PREDICTION_TYPES:
        _, target = training_pair(process, x_0, times, noise, kind)
        found = process.conversion(kind, x_t, t, t - 1)
        output = found.from_sample(found.to_sample(target) + wrong)
        losses.append(denoising_loss(process, output, target, times, kind))
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], rtol=1e-4, atol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_the_true_image_is_sampled(order):
    chosen = scheduler(solver_order=order)
    chosen.set_timesteps(30)
    x_0 = draw(2, 3, 16, 16).clamp(-1, 1)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in chosen.timesteps.tolist():
        s = chosen.previous_timestep(t)
        clean = chosen.process.degrade(x_0, s) / chosen.process.image_scale(s)
        assert clean.abs().max() <= 1
        x = chosen.step(clean, t, x).prev_sample
    torch.testing.assert_close(x, x_0, rtol=0, atol=1e-9)


def test_first_order_loses_less_at_isometric_changes():
    data = power_law_covariance((16, 16))
    distances = [
        chain_distance(process, data, linspace_timesteps(process, 100), Sampler(0.0))
        for process in (scheduler(level_gain=gain, downsample_kernel="area").process for gain in (1.0, 2.0))
    ]
    assert distances[1] < distances[0]


def test_reductions_for_evaluation_are_images():
    chosen, white = scheduler(), torch.ones(1, 3, 16, 16)
    torch.testing.assert_close(LevelReduction(chosen, 950)(white), torch.ones(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level_gain": 3.0}, r"level_gain must be in 1\.\.2, got 3\.0"),
        ({"level_gain": 2.0, "downsample_kernel": "lanczos3"}, "is not a diffusion step"),
    ],
)
def test_gains_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        scheduler(**settings)
