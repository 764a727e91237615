"""Info(t) against its definition, and the continuous schedule against the discrete one."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from ssd.analysis.information.state import (
    continuous_resolution,
    image_information,
    state_information,
    sufficient_resolution,
)
from ssd.process.noise import NoiseSchedule, make_betas
from ssd.process.resolution import CURVES, ResolutionSchedule, pyramid

NOISE = NoiseSchedule.from_betas(make_betas())


@pytest.mark.parametrize("s", [1e-9, 1e-4, 0.01, 0.3, 1.0, 2.5, 10.0, 99.5])
def test_the_closed_form_is_the_integral(s: float) -> None:
    a, sigma = s / math.hypot(s, 1), 1 / math.hypot(s, 1)
    found = float(state_information(torch.tensor(a, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)))
    integral, _ = quad(lambda x: norm.cdf(-s * x), 0, 1, epsabs=1e-14, epsrel=1e-14, points=[min(1, 1 / s)], limit=200)
    assert found == pytest.approx(1 - 2 * integral, abs=1e-12)
    if s < 1e-3:  # s / sqrt(2 pi) to first order: nothing cancels
        assert found == pytest.approx(s / math.sqrt(2 * math.pi), rel=1e-6)


def test_a_state_knows_less_and_less() -> None:
    information = state_information(NOISE.signal, NOISE.sigma)
    assert information[-1] == 1  # the clean image
    assert bool((information[:-1].diff() < 0).all())
    assert 0 < information[999] < 0.003
    meeting = sufficient_resolution(NOISE.signal, NOISE.sigma)
    torch.testing.assert_close(image_information(meeting), information)


@pytest.mark.parametrize("curve", CURVES)
def test_the_discrete_schedule_takes_steps_of_the_continuous_one(curve: str) -> None:
    """floor(u n) and u (n - 1) agree up to one level, and at both ends."""
    levels = ResolutionSchedule.from_curve(pyramid(64, 4), 1000, curve, 3).levels
    for t, level in enumerate(levels):
        octaves = math.log2(64 / continuous_resolution(t / 999, 64, 4, curve, 3))
        assert abs(octaves - level) <= 1
    assert continuous_resolution(0.0, 64, 4, curve, 3) == pytest.approx(64)
    assert continuous_resolution(1.0, 64, 4, curve, 3) == pytest.approx(8)
