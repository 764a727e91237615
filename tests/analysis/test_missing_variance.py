"""What a step lacks: against dense conditioning, against exact marginals, and as measured from a perfect network."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from ssd.analysis import missing_variance as command
from ssd.analysis.covariance_models import by_band, by_frequency, low_rank_and_by_frequency
from ssd.analysis.gaussian_data import posterior_mean_matrix, power_law_covariance, residual_covariance
from ssd.analysis.gaussian_oracle import oracle_process
from ssd.analysis.information.statistics import image_statistics, level_operators
from ssd.analysis.measured_errors import error_covariance
from ssd.analysis.missing_covariance import missing_covariance, missing_variance
from ssd.analysis.reverse_chain import Sampler, chain_distance
from ssd.data import open_dataset
from ssd.evaluation.denoising import Denoiser
from ssd.evaluation.given_images import ImageBatch
from ssd.operators.resize import resize_operator
from ssd.process.noise import NoiseSchedule, make_betas
from ssd.process.resolution import ResolutionSchedule, pyramid
from ssd.process.scale_space import ScaleSpaceProcess
from ssd.process.spacing import linspace_timesteps

from ..evaluation.conftest import save_model
from ..perfect_network import gaussian_images, perfect_pipeline

SMALL = (8, 8)
STEPS = [(343, 344), (343, 500), (300, 301), (606, 607), (100, 900)]
"""At a change, across one, within levels, and across two."""


@pytest.fixture(scope="module")
def early() -> ScaleSpaceProcess:
    return ScaleSpaceProcess(
        NoiseSchedule.from_betas(make_betas()), ResolutionSchedule.from_switches(pyramid(8, 3), 1000, [344, 606])
    )


def marginal(process: ScaleSpaceProcess, data: torch.Tensor, t: int) -> torch.Tensor:
    """Cov x_t, dense."""
    dense = process.operator(-1, t).to_dense()
    identity = torch.eye(len(dense), dtype=torch.float64)
    return process.signal(t) ** 2 * dense @ data @ dense.T + process.sigma(t) ** 2 * identity


def sampler_covariance(process: ScaleSpaceProcess, s: int, t: int) -> torch.Tensor:
    images = [torch.zeros(1, 1, *process.size(i), dtype=torch.float64) for i in (s, t)]
    return process.posterior(*images, s, t).covariance.to_dense()


@pytest.mark.parametrize(("s", "t"), STEPS)
def test_it_is_the_true_covariance_less_the_samplers(early: ScaleSpaceProcess, s: int, t: int) -> None:
    data = power_law_covariance(SMALL)
    step = early.signal(t) / early.signal(s) * early.operator(s, t).to_dense()
    cov_s = marginal(early, data, s)
    cross = cov_s @ step.T
    true = cov_s - cross @ torch.linalg.solve(marginal(early, data, t), cross.T)
    found = missing_covariance(early, residual_covariance(early, data, s, t), s, t)
    torch.testing.assert_close(found, true - sampler_covariance(early, s, t), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("s", "t"), STEPS)
def test_with_it_a_step_takes_the_exact_marginal_to_the_exact_marginal(
    early: ScaleSpaceProcess, s: int, t: int
) -> None:
    data = power_law_covariance(SMALL)
    cov_t = marginal(early, data, t)
    basis = torch.eye(len(cov_t), dtype=torch.float64)
    prediction = posterior_mean_matrix(early, data, s, t)
    images = [rows.view(-1, 1, *early.size(i)) for rows, i in ((prediction, s), (basis, t))]
    mean = early.posterior(*images, s, t).mean.flatten(1)
    without = mean.T @ cov_t @ mean + sampler_covariance(early, s, t)
    missing = missing_covariance(early, residual_covariance(early, data, s, t), s, t)
    torch.testing.assert_close(without + missing, marginal(early, data, s), rtol=0, atol=1e-10)
    if early.level(s) != early.level(t):
        assert float((without - marginal(early, data, s)).abs().max()) > 1e-4


@pytest.mark.parametrize(("t", "expected"), [(50, 8.0), (100, 5.4), (200, 3.4), (344, 1.68), (500, 0.49), (750, 0.022)])
def test_digits_of_16_pixels(t: int, expected: float) -> None:
    """Against figures that were computed independently, in all their digits."""
    images = open_dataset("digits", size=16, channels=1)
    steps = [resize_operator((16, 16), SMALL)]
    covariance = image_statistics((images[i]["image"] for i in range(len(images))), level_operators(steps)).covariance
    noise = NoiseSchedule.from_betas(make_betas())
    process = ScaleSpaceProcess(noise, ResolutionSchedule.from_switches(pyramid(16, 2), 1000, [t]))
    found = missing_variance(process, residual_covariance(process, covariance, t - 1, t), t)
    assert found.largest == pytest.approx(expected, rel=0.02)
    assert found.largest == found.spectrum[0] == max(found.spectrum)
    dense = missing_covariance(process, residual_covariance(process, covariance, t - 1, t), t - 1, t)
    whole = float(dense.trace() + sampler_covariance(process, t - 1, t).trace())
    assert found.share == pytest.approx(float(dense.trace()) / whole, rel=1e-9)


def test_little_is_missing_within_a_level(early: ScaleSpaceProcess) -> None:
    data = power_law_covariance(SMALL)
    found = {t: missing_variance(early, residual_covariance(early, data, t - 1, t), t) for t in (343, 344)}
    assert found[343].largest < 1e-2 * found[344].largest


def test_models_of_a_covariance() -> None:
    root = torch.randn(16, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    covariance = root.T @ root  # of rank 16
    torch.testing.assert_close(low_rank_and_by_frequency(covariance, SMALL, 16), covariance, rtol=0, atol=1e-9)
    torch.testing.assert_close(low_rank_and_by_frequency(covariance, SMALL, 0), by_frequency(covariance, SMALL))
    torch.testing.assert_close(by_frequency(power_law_covariance(SMALL), SMALL), power_law_covariance(SMALL))
    for model in (by_band, by_frequency, partial(low_rank_and_by_frequency, rank=3)):
        simple = model(covariance, SMALL)
        assert float(simple.trace()) == pytest.approx(float(covariance.trace()))
        assert float(torch.linalg.eigvalsh(simple)[0]) > -1e-9


def test_the_repair_helps_a_chain_of_first_order(early: ScaleSpaceProcess) -> None:
    data, timesteps = power_law_covariance(SMALL), linspace_timesteps(early, 50)
    models = [by_band, by_frequency, None]
    plain = chain_distance(early, data, timesteps, Sampler())
    repaired = [chain_distance(early, data, timesteps, Sampler(residual="change", model=model)) for model in models]
    assert max(repaired) < plain / 2
    one_level = oracle_process(SMALL, 1)
    assert min(repaired) < chain_distance(one_level, data, linspace_timesteps(one_level, 50), Sampler())


def test_the_errors_of_a_perfect_network_are_the_residual() -> None:
    pipeline, data = perfect_pipeline(num_levels=2)
    images, count = gaussian_images(data, 4000), 4000
    batches = [ImageBatch(images[i : i + 500], list(range(i, i + 500)), None) for i in range(0, count, 500)]
    t = pipeline.scheduler.process.required_timesteps[0]
    found = error_covariance(Denoiser(pipeline), batches, t)
    expected = residual_covariance(pipeline.scheduler.process, data, t - 1, t)
    # The squared norm of the sampling error of a covariance is (|R|^2 + (tr R)^2) / N in expectation.
    deviation = ((expected.square().sum() + expected.trace() ** 2) / count) ** 0.5
    assert float((found - expected).norm()) < 2 * float(deviation)


def run(capsys, *arguments: str) -> str:
    command.main(["--data", "digits", "--res", "8", "--levels", "2", "--channels", "1", *arguments])
    return capsys.readouterr().out


def test_the_command(capsys, tmp_path) -> None:
    out = tmp_path / "new"
    printed = run(capsys, "--switches", "[344]", "--out", str(out), "--num", "200", "--rank", "4")
    assert "4 x 4 to 8 x 8" in printed
    assert "4 directions" in printed
    assert printed.splitlines()[-2:] == [f"wrote {out}/missing_variance.{suffix}" for suffix in ("json", "png")]
    found = json.loads((out / "missing_variance.json").read_text())
    ancestral = found["distances"]["ancestral, 50 steps"]
    assert ancestral["whole"] < ancestral["frequencies"] < ancestral["bands"] < ancestral["as it is"]
    assert [change["t"] for change in found["gaussian"]] == [344]
    assert (out / "missing_variance.png").read_bytes()[:4] == b"\x89PNG"


def test_the_command_with_a_model(capsys, tmp_path) -> None:
    model = save_model(tmp_path / "m")
    command.main(f"--data digits --res 16 --levels 2 --model {model} --num 100 --num_denoised 20".split())
    header, line, *_ = capsys.readouterr().out.splitlines()
    assert "the network's" in header
    assert len(line.split()) == len(["8", "x", "8", "to", "16", "x", "16", "t", "m", "share", "m", "share"])
    with pytest.raises(SystemExit, match="2"):
        command.main(f"--data digits --res 8 --levels 2 --model {model}".split())
    assert "The model's levels are [(16, 16), (8, 8)], those of --res and" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command.main(f"--data digits --res 16 --levels 2 --channels 1 --model {model}".split())
    assert "The model has 3 channels, got --channels 1." in capsys.readouterr().err
    config = model / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"level_gain": 2.0}))
    with pytest.raises(SystemExit, match="2"):
        command.main(f"--data digits --res 16 --levels 2 --model {model}".split())
    assert "level_gain=2.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--switches", "[0]"], "Switch timesteps must lie in 1..999, got [0]."),
        (["--rank", "0"], "--rank must be at least 1, got 0."),
        (["--res", "64"], "--res must be of at most 1024 pixels, got 64"),
        (["--switches", "[344]", "--model", "runs/digits"], "do not go together"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(capsys, *arguments)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
