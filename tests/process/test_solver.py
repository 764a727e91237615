"""Second order: the rules written out with dense matrices, what it remembers, and what it must not change."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from ssd.process.log_snr import effective_half_log_snrs, half_log_snr, level_offset
from ssd.process.solver import earlier_timesteps, extrapolate
from ssd.scheduling_ssd import SSDScheduler

CHAIN = [999, 950, 889, 880, 700, 555, 554, 300, 0]


def scheduler(**settings) -> SSDScheduler:
    return SSDScheduler(**{"sample_size": 16, "num_levels": 3, "clip_sample": False, "solver_order": 2, **settings})


def images(process, t, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, *process.size(t), generator=generator, dtype=torch.float64)


def log_snr(process, t):
    return float(torch.log(process.signal(t) / process.sigma(t)))


def test_which_predictions_are_used():
    process = scheduler().process
    # 889 and 555 are the level changes; 880 has only just entered its level, and extrapolates from the change.
    assert earlier_timesteps(process, CHAIN) == {950: 999, 889: 950, 880: 889, 700: 880, 555: 700, 554: 555, 300: 554}
    # A level that the chain enters and leaves at once has nothing of its own: first order.
    assert earlier_timesteps(process, [999, 889, 555, 300, 0]) == {889: 999, 300: 555}
    # The nearest prediction would get a weight above 3/4: the anchor is further back.
    near = [999, *range(895, 888, -1), 500, 0]
    assert earlier_timesteps(process, near)[889] == 999


def test_within_a_level():
    process = scheduler().process
    x_hat, earlier = images(process, 300), images(process, 300, seed=1)
    h, since = (log_snr(process, a) - log_snr(process, b) for a, b in ((200, 300), (300, 500)))
    expected = x_hat + min(h / (2 * since), 0.5) * (x_hat - earlier)
    torch.testing.assert_close(extrapolate(process, x_hat, earlier, 500, 300, 200), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "area"])
def test_where_the_level_changes(kernel):
    """Rule (b) in the singular basis of the dense operator; the null space is left alone."""
    process = scheduler(downsample_kernel=kernel).process
    u, t, s = 700, 555, 500
    x_hat, earlier = images(process, s), images(process, t)
    dense = process.operator(s, t).to_dense()
    h, since = log_snr(process, s) - log_snr(process, t), log_snr(process, t) - log_snr(process, u)
    left, lam, right = torch.linalg.svd(dense, full_matrices=False)
    weight = ((h - lam.log()) / (2 * since)).clamp(max=1.5)
    difference = x_hat.flatten(2) @ dense.T - earlier.flatten(2)
    expected = x_hat.flatten(2) + (difference @ left * (weight / lam)) @ right
    found = extrapolate(process, x_hat, earlier, u, t, s).flatten(2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    moved = found - x_hat.flatten(2)
    torch.testing.assert_close(moved @ right.T @ right, moved, rtol=0, atol=1e-10)


def test_after_a_change():
    """Rule (c): per direction of the row space of the change's operator, and nothing of its null space."""
    process = scheduler().process
    u, t, s = 555, 500, 400
    x_hat, earlier = images(process, s), images(process, t, seed=1)
    _, lam, right = torch.linalg.svd(process.operator(t, u).to_dense(), full_matrices=False)
    h, since = log_snr(process, s) - log_snr(process, t), log_snr(process, t) - log_snr(process, u)
    weight = (h / (2 * (since - lam.log()))).clamp(max=0.5)
    expected = x_hat.flatten(2) + ((x_hat - earlier).flatten(2) @ right.T * weight) @ right
    found = extrapolate(process, x_hat, earlier, u, t, s).flatten(2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_blur_within_a_level_has_its_own_log_snr_per_frequency():
    process = scheduler(num_levels=1, blur_sigma_max=3.0).process
    u, t, s = 700, 600, 500
    x_hat, earlier = images(process, s), images(process, t, seed=1)
    dense = process.operator(s, t).to_dense()
    lam, basis = torch.linalg.eigh(dense)
    h, since = log_snr(process, s) - log_snr(process, t), log_snr(process, t) - log_snr(process, u)
    gain = torch.where(lam >= 1e-3, ((h - lam.log()) / (2 * since)).clamp(max=0.5) / lam, 0.0)
    difference = x_hat.flatten(2) @ dense - earlier.flatten(2)
    expected = x_hat.flatten(2) + (difference @ basis * gain) @ basis.T
    found = extrapolate(process, x_hat, earlier, u, t, s).flatten(2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("settings", [{}, {"blur_sigma_max": 2.0}, {"num_levels": 1}])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_constant_prediction_makes_second_order_the_same_as_first(settings, eta):
    """With the truth as prediction nothing is extrapolated: both orders draw the same x_s."""
    results = []
    for order in (1, 2):
        chosen = scheduler(solver_order=order, **settings)
        chain = CHAIN if chosen.config.num_levels == 3 else [999, 600, 300, 0]
        chosen.set_timesteps(timesteps=chain)
        generator = torch.Generator().manual_seed(0)
        x_0 = images(chosen.process, -1)
        x = torch.randn(2, 3, *chosen.size_at(999), generator=generator, dtype=torch.float64)
        for t in chain:
            clean = chosen.process.degrade(
                x_0, chosen.process.resolution.level_starts[chosen.process.level(chosen.previous_timestep(t))]
            )
            x = chosen.step(clean, t, x, eta=eta, generator=generator).prev_sample
        results.append(x)
    torch.testing.assert_close(*results, rtol=0, atol=1e-9)


def test_set_timesteps_forgets_and_other_images_are_refused():
    chosen = scheduler()
    chosen.set_timesteps(timesteps=CHAIN)
    x = images(chosen.process, 999)
    clean = images(chosen.process, 950)
    chosen.step(clean, 999, x)
    other = clean[:1]
    with pytest.raises(ValueError, match=r"continues a chain of other images.*Call set_timesteps before new images"):
        chosen.step(other, 950, x[:1])
    chosen.set_timesteps(timesteps=CHAIN)
    first = SSDScheduler.from_config(chosen.config, solver_order=1)
    first.set_timesteps(timesteps=CHAIN)
    # Without an earlier prediction the step is of first order.
    torch.testing.assert_close(
        chosen.step(clean, 950, x, eta=0).prev_sample, first.step(clean, 950, x, eta=0).prev_sample, rtol=0, atol=0
    )


def test_few_predictions_are_kept():
    chosen = scheduler(timestep_spacing="logsnr")
    chosen.set_timesteps(60)
    most = 0
    for t in chosen.timesteps.tolist():
        size, larger = chosen.size_at(t), chosen.prediction_size(t)
        chosen.step(torch.zeros(1, 1, *larger), t, torch.zeros(1, 1, *size))
        most = max(most, len(chosen._solver._predictions))
    assert most <= 2
    assert not chosen._solver._predictions


def test_effective_log_snr_falls_and_jumps_by_log_two():
    process = scheduler().process
    known = effective_half_log_snrs(process)
    assert all(later < earlier for earlier, later in pairwise(known))
    for level in range(3):
        assert level_offset(process, level) == pytest.approx(-level * math.log(2), abs=1e-12)
    assert known[400] == pytest.approx(half_log_snr(process, 400), abs=1e-12)
    assert half_log_snr(process, -1) == float("inf")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver_order": 3}, "solver_order must be one of 1, 2, got 3"),
        ({"timestep_spacing": "trailing"}, "timestep_spacing must be one of linspace, logsnr, got 'trailing'"),
        ({"residual_covariance": "row"}, "residual_covariance must be one of none, null_space, change, all, got 'row'"),
        ({"residual_covariance": "all"}, "needs a calibration of this network"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        scheduler(**settings)
