"""Second-order sampling with a perfect network: independent numbers, the product's sampler, and what it promises."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from ssd.analysis.covariance_models import by_band
from ssd.analysis.gaussian_bound import bits_of_8_bit_pixels, expected_bound
from ssd.analysis.gaussian_data import power_law_covariance, residual_covariance
from ssd.analysis.gaussian_oracle import oracle_process
from ssd.analysis.reverse_chain import Sampler, chain_distance, reverse_chain_covariance
from ssd.process.likelihood import step_kl
from ssd.process.spacing import SPACINGS, linspace_timesteps, logsnr_timesteps
from ssd.scheduling_ssd import SSDScheduler

from ..perfect_network import sampled_covariance

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "solver_oracle.json").read_text())
# One case is without the carry across changes, which the product does not offer.
CASES = [case for case in GOLDEN["sampling"] if case["options"].get("carry", True)]
SPACING = {"uniform_t": "linspace", "logsnr_eff": "logsnr"}


def problem(case):
    size, levels = (case["problem"]["n"],) * 2, case["problem"]["L"]
    process = oracle_process(size, levels)
    assert list(process.resolution.level_changes) == case["problem"]["switches"]
    return process, power_law_covariance(size)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_timesteps(case):
    process, _ = problem(case)
    rule, number = case["rule"]
    assert SPACINGS[SPACING[rule]](process, number) == case["timesteps"]
    assert process.resolution.cost(case["timesteps"]) == case["pixels"]


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c["id"], marks=[pytest.mark.slow] if c["problem"]["n"] > 16 else []) for c in CASES],
)
def test_independent_distances(case):
    process, data = problem(case)
    options = case["options"]
    bands = options.get("log_bands")
    model = None if bands is None else partial(by_band, num_bands=bands)
    sampler = Sampler(options["eta"], options["order"], options.get("cov", "none"), model)
    distance = chain_distance(process, data, case["timesteps"], sampler)
    assert distance == pytest.approx(case["error"], rel=1e-2, abs=1e-10)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_scheduler_samples_this_chain(eta):
    """The product's sampler in pixels, 60,000 images, 8 steps: their covariance is the one computed."""
    num_images = 60_000
    scheduler = SSDScheduler(sample_size=8, num_levels=3, clip_sample=False, solver_order=2, timestep_spacing="logsnr")
    scheduler.set_timesteps(8)
    process, data, timesteps = scheduler.process, power_law_covariance((8, 8)), scheduler.timesteps.tolist()
    sampled = sampled_covariance(scheduler, data, num_images, eta)
    computed = reverse_chain_covariance(process, data, timesteps, Sampler(eta, solver_order=2))
    assert sampled.trace() == pytest.approx(float(computed.trace()), rel=0.01)
    # The mean squared error of an estimated covariance is (|C|^2 + tr(C)^2) / N; it hardly varies.
    expected_error = torch.sqrt((computed.square().sum() + computed.trace() ** 2) / num_images)
    assert torch.linalg.norm(sampled - computed) < 1.5 * expected_error


@pytest.mark.slow
@pytest.mark.parametrize("num_levels", [3, 4])
def test_twenty_steps_of_second_order_beat_a_thousand(num_levels):
    data, process = power_law_covariance((16, 16)), oracle_process((16, 16), num_levels)
    second = chain_distance(process, data, logsnr_timesteps(process, 20), Sampler(0.0, solver_order=2))
    assert second <= 0.0090
    for eta in (0.0, 1.0):
        assert second < chain_distance(process, data, linspace_timesteps(process, 1000), Sampler(eta))


@pytest.mark.parametrize(("s", "t"), [(-1, 0), (400, 500), (554, 555), (300, 900)])
def test_residual_covariance_is_that_of_conditioning(s, t):
    process, data = oracle_process((8, 8), 3), power_law_covariance((8, 8))
    degrade_s, degrade_t = process.operator(-1, s).to_dense(), process.operator(-1, t).to_dense()
    a_t, sigma_t = process.signal(t), process.sigma(t)
    covariance_t = a_t**2 * degrade_t @ data @ degrade_t.T + sigma_t**2 * torch.eye(len(degrade_t)).double()
    cross = a_t * degrade_s @ data @ degrade_t.T
    expected = degrade_s @ data @ degrade_s.T - cross @ torch.linalg.solve(covariance_t, cross.T)
    torch.testing.assert_close(residual_covariance(process, data, s, t), expected, rtol=0, atol=1e-10)


def test_the_parts_of_the_missing_covariance():
    """At a level change the row space is what is missing, not the new details (docs/maths.md)."""
    process, data = oracle_process((16, 16), 3), power_law_covariance((16, 16))
    chain = linspace_timesteps(process, 200)
    none, null, row = (chain_distance(process, data, chain, Sampler(0.0, 1, kind)) for kind in ("none", "null", "row"))
    assert null > 0.95 * none
    assert row < 0.25 * none


def test_an_unknown_residual_is_named():
    with pytest.raises(ValueError, match="residual must be one of none, null, row"):
        Sampler(residual="some")


@pytest.mark.parametrize("case", GOLDEN["likelihood"], ids=lambda case: f"{case['problem']['L']}-{case['cov']}")
def test_independent_bounds(case):
    process, data = problem(case)
    calibrated = {"theorem3": "none"}.get(case["cov"], case["cov"])
    parts = expected_bound(process, data, case["timesteps"], calibrated)
    assert parts["gap"] == pytest.approx(case["parts"]["gap"], rel=1e-2)
    for name in ("prior", "within", "change", "decoder", "entropy", "bound"):
        assert parts[name] == pytest.approx(case["parts"][name], rel=1e-6)
    for density, pixels in (("bound", "bound_bits_8bit"), ("entropy", "entropy_bits_8bit")):
        assert bits_of_8_bit_pixels(parts[density]) == pytest.approx(case["parts"][pixels], rel=1e-6)


def test_the_bound_is_the_expectation_of_its_terms():
    """One error per direction of the residual makes the sum of `step_kl` its expectation."""
    process, data = oracle_process((8, 8), 3), power_law_covariance((8, 8))
    chain = logsnr_timesteps(process, 12)
    total = 0.0
    for t, s in pairwise(chain):
        values, vectors = torch.linalg.eigh(residual_covariance(process, data, s, t))
        errors = (values.clamp(min=0).sqrt() * vectors).T.reshape(-1, 1, *process.size(s))
        total += float(step_kl(process, errors, s, t).sum())
    parts = expected_bound(process, data, chain)
    assert total / 64 == pytest.approx(parts["within"] + parts["change"], rel=1e-10)
