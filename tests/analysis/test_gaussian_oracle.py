"""The whole reverse chain in closed form: against an independent computation, the sampler itself, and theory."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ssd.analysis import gaussian_oracle
from ssd.analysis.gaussian_data import posterior_mean_matrix, power_law_covariance
from ssd.analysis.gaussian_oracle import oracle_process
from ssd.analysis.reverse_chain import Sampler, chain_distance, reverse_chain_covariance
from ssd.scheduling_ssd import SSDScheduler

from ..perfect_network import sampled_covariance

SMALL = (8, 8)

# (eta, N, levels, steps, squared Frechet distance) at 32 x 32, computed independently of this code.
REFERENCE = [
    (1, 10, 1, 10, 27.479),
    (1, 10, 2, 11, 28.191),
    (1, 10, 3, 11, 34.256),
    (1, 25, 1, 25, 7.285),
    (1, 25, 2, 26, 7.340),
    (1, 25, 3, 27, 8.989),
    (0, 10, 1, 10, 16.479),
    (0, 10, 2, 11, 17.318),
    (0, 10, 3, 11, 20.447),
    (0, 25, 1, 25, 3.061),
    (0, 25, 2, 26, 3.159),
    (0, 25, 3, 27, 3.892),
]
FAST = [case for case in REFERENCE if case[1] == 10 and (case[0] == 1 or case[2] == 3)]
SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in REFERENCE if case not in FAST]


def spread_timesteps(process, number):
    """`number` even timesteps and every level change, descending: the chains of the references."""
    spread = np.linspace(0, process.num_timesteps - 1, number).round().astype(int).tolist()
    return sorted({*spread, *process.resolution.level_changes}, reverse=True)


@pytest.fixture(scope="module")
def natural_covariance():
    return power_law_covariance((32, 32))


@pytest.mark.parametrize(("eta", "number", "num_levels", "num_steps", "expected"), [*FAST, *SLOW])
def test_independent_reference(natural_covariance, eta, number, num_levels, num_steps, expected):
    process = oracle_process((32, 32), num_levels)
    timesteps = spread_timesteps(process, number)
    assert len(timesteps) == num_steps
    assert chain_distance(process, natural_covariance, timesteps, Sampler(eta)) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_one_level_is_a_scalar_recursion_per_frequency(eta):
    """With D = I everything is diagonal in the basis of C: Gaussian DDIM, written out for one coefficient."""
    process, data = oracle_process(SMALL, 1), power_law_covariance(SMALL)
    timesteps = spread_timesteps(process, 10)
    spectrum, basis = torch.linalg.eigh(data)
    variance = torch.ones_like(spectrum)
    for t, s in zip(timesteps, [*timesteps[1:], -1]):
        a_t, a_s, sigma_t, sigma_s = process.signal(t), process.signal(s), process.sigma(t), process.sigma(s)
        wiener = a_t * spectrum / (a_t**2 * spectrum + sigma_t**2)
        noise = eta**2 * (sigma_s / sigma_t) ** 2 * (1 - (a_t / a_s) ** 2)  # DDIM, equation 16, squared
        direction = torch.sqrt(sigma_s**2 - noise)
        gain = a_s * wiener + direction * (1 - a_t * wiener) / sigma_t  # x_0 part and predicted-noise part
        variance = gain**2 * variance + noise
    expected = basis @ torch.diag(variance) @ basis.T
    torch.testing.assert_close(
        reverse_chain_covariance(process, data, timesteps, Sampler(eta)), expected, rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_scheduler_samples_this_chain(eta):
    """The product's sampler with the perfect network, many images: their covariance is the one computed."""
    num_images = 40_000
    scheduler = SSDScheduler(sample_size=SMALL, num_levels=3, clip_sample=False, solver_order=1)
    process, data = scheduler.process, power_law_covariance(SMALL)
    timesteps = spread_timesteps(process, 10)
    scheduler.set_timesteps(timesteps=timesteps)
    sampled = sampled_covariance(scheduler, data, num_images, eta)
    computed = reverse_chain_covariance(process, data, timesteps, Sampler(eta))
    assert torch.linalg.norm(sampled - computed) < 0.02 * torch.linalg.norm(computed)  # about 3 standard errors


@pytest.mark.parametrize(("s", "t"), [(-1, 0), (400, 500), (-1, 999), (700, 900)])
def test_prediction_error_is_uncorrelated_with_what_was_seen(s, t):
    """The defining property of the posterior mean, with dense matrices throughout."""
    process, data = oracle_process(SMALL, 3), power_law_covariance(SMALL)
    degrade_s, degrade_t = process.operator(-1, s).to_dense(), process.operator(-1, t).to_dense()
    a_t, sigma_t = process.signal(t), process.sigma(t)
    covariance_t = a_t**2 * degrade_t @ data @ degrade_t.T + sigma_t**2 * torch.eye(len(degrade_t), dtype=data.dtype)
    cross = a_t * degrade_s @ data @ degrade_t.T  # of D_s x_0 and x_t
    denoiser = posterior_mean_matrix(process, data, s, t).T
    torch.testing.assert_close(denoiser @ covariance_t, cross, rtol=0, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("num_levels", [1, 3])
def test_more_steps_come_closer(num_levels, eta):
    process, data = oracle_process(SMALL, num_levels), power_law_covariance(SMALL)
    distances = [chain_distance(process, data, spread_timesteps(process, n), Sampler(eta)) for n in (10, 40, 160)]
    assert distances[0] > 4 * distances[1] > 8 * distances[2] > 0


def test_power_law_covariance():
    covariance = power_law_covariance((4, 6), mean_variance=0.25, offset=0.5)
    variances, vectors = torch.linalg.eigh(covariance)
    assert covariance.diagonal().mean() == pytest.approx(0.25, rel=1e-12)
    torch.testing.assert_close(vectors[:, -1].abs(), torch.full((24,), 24**-0.5, dtype=torch.float64))  # brightness
    expected = sorted(1 / (0.5 + i**2 + j**2) for i in range(4) for j in range(6))
    torch.testing.assert_close(variances / variances[-1], torch.tensor(expected, dtype=torch.float64) / expected[-1])


def test_wrong_covariance_is_named():
    with pytest.raises(ValueError, match=r"must be \(64, 64\), got \(16, 16\)"):
        reverse_chain_covariance(oracle_process(SMALL, 2), power_law_covariance((4, 4)), [999, 0], Sampler())


ARGUMENTS = ["--res", "8", "--levels", "[1, 2]", "--steps", "[10]", "--etas", "[1]"]


def test_command_prints_the_table(capsys):
    gaussian_oracle.main(ARGUMENTS)
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["order", "eta", "levels", "steps", "cost", "Frechet", "distance"]
    found = [row.split()[:4] for row in rows]
    assert found == [[order, "1", levels, "10"] for order in "12" for levels in "12"]
    assert [row.split()[4] for row in rows] == ["10.00", "8.50", "10.00", "8.50"]


def test_command_adds_the_covariance_that_a_mean_lacks(capsys):
    gaussian_oracle.main([*ARGUMENTS, "--covariance", "all"])
    assert all(abs(float(row.split()[5])) < 1e-9 for row in capsys.readouterr().out.splitlines()[1:3])


def test_size_by_its_former_name(capsys):
    gaussian_oracle.main(["--image_size", *ARGUMENTS[1:]])
    captured = capsys.readouterr()
    assert captured.err == "note: --image_size is now called --res.\n"
    assert len(captured.out.splitlines()) == 5


def test_command_draws_the_plot(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "plots" / "oracle.png"
    gaussian_oracle.main([*ARGUMENTS, "--plot", str(path)])
    assert path.read_bytes().startswith(b"\x89PNG")
    assert f"wrote {path}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--levels", "[0]"], "--levels must be in 1..6, got 0"),
        (["--res", "12", "--levels", "[4]"], "use at most 3 levels"),
        (["--res", "128"], "--res must be in 2..64, got 128"),
        (["--steps", "[1]"], "--steps must be in 3..1000, got 1"),
        (["--solver_orders", "[3]"], "--solver_orders must be in 1..2, got 3"),
        (["--steps", "[]"], "got an empty list"),
        (["--etas", "[2]"], "--etas must be in 0..1, got 2"),
        (["--resolution_gamma", "0"], "resolution_gamma must be positive"),
        (["--plot", "oracle.jpg"], "--plot oracle.jpg must end in .png"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, arguments, message):
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    _check_usage_error(capsys, arguments, message)


def test_missing_matplotlib_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    _check_usage_error(capsys, ["--plot", "oracle.png"], "need matplotlib")


def _check_usage_error(capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_info:
        gaussian_oracle.main(arguments)
    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert message in error
    assert len(error.splitlines()) == 1
