"""Noise and resolution schedules against closed forms, diffusers and the published values."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ssd.process.noise import BETA_SCHEDULES, NoiseSchedule, make_betas
from ssd.process.resolution import CURVES, ResolutionSchedule, pyramid

GOLDEN = Path(__file__).parents[1] / "golden"
PUBLISHED = json.loads((GOLDEN / "resolution_schedules_256.json").read_text())
PUBLISHED_NAMES = {
    "equal": "equal",
    "ConvexDecay": "convex_decay",
    "SigmoidLikeDecay": "sigmoid_like",
    "TanhLikeDecay": "tanh_like",
}


@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_betas_are_those_of_diffusers(name: str) -> None:
    start, end = (0.00085, 0.012) if name == "scaled_linear" else (1e-4, 0.02)
    expected = DDPMScheduler(beta_schedule=name, beta_start=start, beta_end=end)
    schedule = NoiseSchedule.from_betas(make_betas(name, 1000, start, end))
    torch.testing.assert_close(schedule.signal[:-1].float() ** 2, expected.alphas_cumprod, atol=2e-6, rtol=1e-4)


def test_signal_and_sigma_are_the_published_values() -> None:
    golden = load_file(GOLDEN / "process_32_3l_convex0.5.safetensors")
    schedule = NoiseSchedule.from_betas(make_betas())
    torch.testing.assert_close(schedule.signal[:-1], golden["signal"], atol=1e-12, rtol=0)
    torch.testing.assert_close(schedule.sigma[:-1], golden["sigma"], atol=1e-12, rtol=0)


def test_clean_image_stands_at_minus_one() -> None:
    schedule = NoiseSchedule.from_betas(make_betas())
    assert schedule.signal[-1] == 1
    assert schedule.sigma[-1] == 0
    assert schedule.sigma[0] == pytest.approx(0.01, abs=1e-15)
    torch.testing.assert_close(schedule.signal**2 + schedule.sigma**2, torch.ones(1001, dtype=torch.float64))
    assert (schedule.snr.diff() < 0).all()


@pytest.mark.parametrize(
    "arguments", [("cosine",), ("linear", 0), ("linear", 10, 0.0, 0.02), ("linear", 10, 0.1, 0.01)]
)
def test_wrong_betas_are_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match=r"choose one of|at least 1|need 0 < beta_start"):
        make_betas(*arguments)


@pytest.mark.parametrize("key", PUBLISHED)
def test_resolutions_are_the_published_ones_at_every_timestep(key: str) -> None:
    levels, curve = key.split("/")
    name, _, gamma = curve.partition("_")
    schedule = ResolutionSchedule.from_curve(pyramid(256, int(levels)), 1000, PUBLISHED_NAMES[name], float(gamma or 1))
    expected = [resolution for resolution, count in PUBLISHED[key] for _ in range(count)]
    assert [schedule.size(t) for t in range(1000)] == [(resolution, resolution) for resolution in expected]


@given(name=st.sampled_from(list(CURVES)), gamma=st.floats(1, 4), tau=st.floats(0, 1))
def test_curves_rise_from_zero_to_one(name: str, gamma: float, tau: float) -> None:
    curve = CURVES[name]
    assert curve(0.0, gamma) == pytest.approx(0, abs=1e-9)
    assert curve(1.0, gamma) == pytest.approx(1, abs=1e-9)
    assert curve(tau, gamma) <= curve(min(1.0, tau + 1e-3), gamma) + 1e-9


@given(gamma=st.floats(1, 4), tau=st.floats(0, 1))
def test_sigmoid_like_inverts_tanh_like(gamma: float, tau: float) -> None:
    assert CURVES["tanh_like"](CURVES["sigmoid_like"](tau, gamma), gamma) == pytest.approx(tau, abs=1e-7)


@given(num_timesteps=st.integers(2, 300), levels=st.integers(1, 5), name=st.sampled_from(list(CURVES)))
@settings(max_examples=50)
def test_levels_never_decrease_and_changes_are_first_timesteps(num_timesteps: int, levels: int, name: str) -> None:
    schedule = ResolutionSchedule.from_curve(pyramid(64, levels), num_timesteps, name, 2)
    assert list(schedule.levels) == sorted(schedule.levels)
    assert schedule.size(-1) == (64, 64)
    for t in schedule.level_changes:
        assert schedule.level(t) > schedule.level(t - 1)


def test_explicit_switches() -> None:
    schedule = ResolutionSchedule.from_switches(pyramid(16, 3), 10, [4, 7])
    assert schedule.level_changes == (4, 7)
    assert schedule.levels == (0, 0, 0, 0, 1, 1, 1, 2, 2, 2)
    for wrong in ([4], [7, 4], [0, 4], [4, 10]):
        with pytest.raises(ValueError, match="witch timesteps"):
            ResolutionSchedule.from_switches(pyramid(16, 3), 10, wrong)


def test_pyramid_says_the_largest_number_of_levels() -> None:
    assert pyramid((12, 8), 3) == [(12, 8), (6, 4), (3, 2)]
    with pytest.raises(ValueError, match=r"32 x 32 pixels can be halved 5 times: use at most 6 levels"):
        pyramid(32, 7)
    with pytest.raises(ValueError, match="use at most 1 levels"):
        pyramid(33, 2)


def test_unknown_schedule_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'linear'.*convex_decay"):
        ResolutionSchedule.from_curve(pyramid(16, 2), 10, "linear")
    with pytest.raises(ValueError, match="tanh_like needs resolution_gamma >= 1"):
        ResolutionSchedule.from_curve(pyramid(16, 2), 10, "tanh_like", 0.5)
    with pytest.raises(ValueError, match="must be positive, got -1"):
        ResolutionSchedule.from_curve(pyramid(16, 2), 10, "equal", -1)
