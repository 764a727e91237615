"""Switches: from a variance to timesteps, the bands in which they may move, and theorem 1 in all of them."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.operators.linear import ImplicitOperator
from ssd.process import NoiseSchedule, ResolutionSchedule, ScaleSpaceProcess, make_betas, pyramid
from ssd.process.switches import check_in_bands, mean_cost, switch_bands, switches_of_variance

NOISE = NoiseSchedule.from_betas(make_betas())


@given(variance=st.floats(1e-6, 1.0), levels=st.integers(2, 6), theta=st.floats(1e-3, 1.0))
def test_the_first_switch_is_where_the_details_drown(variance: float, levels: int, theta: float) -> None:
    switches = switches_of_variance(NOISE, variance, levels, theta)
    first = switches[0]
    assert NOISE.snr[first] * variance <= theta
    assert first == 1 or NOISE.snr[first - 1] * variance > theta
    ResolutionSchedule.from_switches(pyramid(64, levels), 1000, switches)  # they are a schedule
    gaps = [after - before for before, after in zip(switches, [*switches[1:], 1000])]
    assert max(gaps) - min(gaps) <= 1  # equal shares, rounded


def test_one_level_has_no_switch_and_impossible_ones_are_refused() -> None:
    assert switches_of_variance(NOISE, 0.1, 1) == []
    assert switches_of_variance(NOISE, 0.0, 2) == [1]  # nothing to lose
    with pytest.raises(ValueError, match=r"theta=1e-09 is too small.*Use a larger theta, or fewer levels"):
        switches_of_variance(NOISE, 0.1, 2, 1e-9)
    with pytest.raises(ValueError, match="must be a number from 0 on, got nan"):
        switches_of_variance(NOISE, float("nan"), 2)
    with pytest.raises(ValueError, match="theta must be positive, got 0"):
        switches_of_variance(NOISE, 0.1, 2, 0.0)


@given(switches=st.sets(st.integers(1, 99), min_size=1, max_size=6), jitter=st.floats(0, 0.5))
@settings(max_examples=200)
def test_bands_hold_their_switch_and_never_meet(switches: set, jitter: float) -> None:
    chosen = sorted(switches)
    bands = switch_bands(chosen, 100, jitter)
    edges = [0, *chosen, 100]
    for number, (switch, band) in enumerate(zip(chosen, bands), start=1):
        assert switch in band
        assert switch - jitter * (switch - edges[number - 1]) <= band[0]
        assert band[-1] <= switch + jitter * (edges[number + 1] - switch)
    assert all(below[-1] < above[0] for below, above in pairwise(bands))
    for take in (0, -1):  # any choice is a schedule
        ResolutionSchedule.from_switches(pyramid(2**6, len(chosen) + 1), 100, [band[take] for band in bands])


def test_no_jitter_leaves_one_value() -> None:
    bands = switch_bands([400, 700], 1000, 0.0)
    assert [list(band) for band in bands] == [[400], [700]]
    check_in_bands([400, 700], bands)
    with pytest.raises(ValueError, match=r"Switch 2 must be 700, as in training, got 701"):
        check_in_bands([400, 701], bands)
    with pytest.raises(ValueError, match=r"Switch 1 must be in 300\.\.475, got 299"):
        check_in_bands([299, 700], switch_bands([400, 700], 1000, 0.25))
    with pytest.raises(ValueError, match="3 levels need 2 switches, got"):
        check_in_bands([400], bands)
    with pytest.raises(ValueError, match=r"switch_jitter must be in \[0, 0.5\], got 0.6"):
        switch_bands([400, 700], 1000, 0.6)


def test_the_cost_is_that_of_the_predictions() -> None:
    sizes = pyramid(32, 3)
    schedule = ResolutionSchedule.from_curve(sizes, 1000)
    pixels = [schedule.size(t - 1)[0] ** 2 for t in range(1000)]
    assert mean_cost(schedule) == pytest.approx(sum(pixels) / 1000 / 32**2)
    assert mean_cost(ResolutionSchedule.from_curve(sizes[:1], 1000)) == 1


@pytest.mark.parametrize("blur", [None, 3.0])
def test_a_process_with_other_switches_is_the_one_built_with_them(blur: float | None) -> None:
    widths = None if blur is None else torch.cat([torch.linspace(0, blur, 1000), torch.zeros(1)]).double()
    first = ResolutionSchedule.from_switches(pyramid(16, 3), 1000, [300, 600])
    other = ResolutionSchedule.from_switches(pyramid(16, 3), 1000, [350, 500])
    process = ScaleSpaceProcess(NOISE, first, blur_widths=widths)
    x_0 = torch.randn(1, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = process.degrade(x_0, 450)
    moved, built = process.with_switches([350, 500]), ScaleSpaceProcess(NOISE, other, blur_widths=widths)
    for t in (100, 349, 350, 499, 500, 999):
        torch.testing.assert_close(moved.degrade(x_0, t), built.degrade(x_0, t), rtol=0, atol=1e-14)
        torch.testing.assert_close(moved.target(x_0, t), built.target(x_0, t), rtol=0, atol=1e-14)
    assert moved.required_timesteps == (350, 500)
    assert torch.equal(process.degrade(x_0, 450), before)
    assert process.required_timesteps == (300, 600)


def test_theorem_one_is_checked_in_the_whole_band() -> None:
    """The allowed gain is least in the middle of the chain: 1.008 passes at 100 and at 999, and not between."""

    def amplified(fine, coarse):
        return ImplicitOperator(lambda x: 1.008 * x[..., ::2, ::2], fine)

    process = ScaleSpaceProcess(NOISE, ResolutionSchedule.from_switches(pyramid(8, 2), 1000, [100]), amplified)
    process.check_bands([range(90, 110)])
    process.check_bands([range(999, 1000)])
    with pytest.raises(ValueError, match=r"Timestep \d+ is not a diffusion step.*of gain 1.008"):
        process.check_bands([range(100, 1000)])
