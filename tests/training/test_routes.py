"""Which route a batch takes, and which timesteps its images get."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ssd.process import NoiseSchedule, ScaleSpaceProcess, make_betas
from ssd.process.resolution import ResolutionSchedule, pyramid
from ssd.process.switches import switch_bands
from ssd.seeding import random_words, uniform
from ssd.training.routes import BatchRoutes

SCHEDULE = ResolutionSchedule.from_curve(pyramid(32, 3), 1000)


def process_of(schedule: ResolutionSchedule) -> ScaleSpaceProcess:
    betas = make_betas(num_timesteps=len(schedule.levels))
    return ScaleSpaceProcess(NoiseSchedule.from_betas(betas), schedule)


PROCESS = process_of(SCHEDULE)


def draw(routes: BatchRoutes, batch: int, images: range):
    route = routes.route(batch)
    return route, routes.timesteps(route, uniform(random_words(routes.seed, "image", images)[:, 0])).tolist()


@given(seed=st.integers(0, 2**31), batch=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_batch_has_one_route(seed: int, batch: int) -> None:
    route, timesteps = draw(BatchRoutes(PROCESS, seed), batch, range(16))
    assert {SCHEDULE.level(t) for t in timesteps} == {route.level}
    assert {SCHEDULE.size(t - 1) for t in timesteps} == {route.output_size}
    assert route.weight == 1.0


def test_level_changes_fill_their_batch() -> None:
    schedule = ResolutionSchedule.from_switches(pyramid(8, 2), 4, [2])
    routes = BatchRoutes(process_of(schedule), 0)
    batches = [draw(routes, batch, range(8)) for batch in range(40)]
    changes = [timesteps for route, timesteps in batches if route.change is not None]
    assert changes
    assert all(set(timesteps) == {2} for timesteps in changes)
    assert not any(2 in timesteps for route, timesteps in batches if route.change is None)


@pytest.mark.parametrize("probability", [None, 0.3])
def test_the_marginal_of_t(probability: float | None) -> None:
    """Uniform by default; with a transition probability, the importance weights make it uniform again."""
    schedule = ResolutionSchedule.from_curve(pyramid(8, 3), 50)
    routes = BatchRoutes(process_of(schedule), 0, probability)
    # One image per batch: images of a batch share their level and would not be independent.
    uniforms = uniform(random_words(0, "image", range(20_000))[:, 0])
    counts, weighted = np.zeros(50), np.zeros(50)
    for batch in range(20_000):
        route = routes.route(batch)
        t = int(routes.timesteps(route, uniforms[batch : batch + 1]))
        counts[t] += 1
        weighted[t] += route.weight
    if probability is None:
        assert chisquare(counts).pvalue > 0.001
    else:
        assert counts[list(schedule.level_changes)].sum() / 20_000 == pytest.approx(0.3, abs=0.015)
        np.testing.assert_allclose(weighted, 400, rtol=0.25)
        assert weighted.sum() == pytest.approx(20_000, rel=0.02)
        plain = BatchRoutes(process_of(schedule), 0, probability, importance_weights=False)
        assert plain.route(0).weight == 1.0


def test_moving_switches_are_drawn_per_batch_and_keep_the_marginal_of_t() -> None:
    schedule = ResolutionSchedule.from_switches(pyramid(8, 3), 50, [20, 35])
    bands = switch_bands([20, 35], 50, 0.4)
    assert bands == [range(12, 27), range(29, 42)]
    routes, other = (BatchRoutes(process_of(schedule), 3, bands=bands) for _ in range(2))
    seen, counts = set(), np.zeros(50)
    for batch in range(4000):
        route, (t,) = draw(routes, batch, range(batch, batch + 1))
        switches = route.process.required_timesteps
        assert all(switch in band for switch, band in zip(switches, bands))
        assert route.level == sum(t >= switch for switch in switches)
        assert route.output_size == route.process.size(t - 1)
        assert (route.change is not None) == (t in switches)
        seen.add(switches)
        counts[t] += 1
        if batch % 100 == 0:  # on every process alike
            assert other.route(batch).process.required_timesteps == switches
    assert len(seen) == 15 * 13  # each is missed with a probability of e^-20
    assert chisquare(counts).pvalue > 0.001


def test_expected_loss_is_unchanged_by_the_transition_probability() -> None:
    """A fixed toy loss per timestep, averaged exactly over the distribution of t."""
    schedule = ResolutionSchedule.from_curve(pyramid(8, 3), 50)
    toy = np.linspace(1, 3, 50) ** 2
    routes = BatchRoutes(process_of(schedule), 0, transition_probability=0.25)
    changes = list(schedule.level_changes)
    others = [t for t in range(50) if t not in changes]
    weight = {route.change is not None: route.weight for route in (routes.route(batch) for batch in range(200))}
    expected = 0.25 * weight[True] * toy[changes].mean() + 0.75 * weight[False] * toy[others].mean()
    assert expected == pytest.approx(toy.mean(), rel=1e-12)
