"""Calibration: what is measured of a perfect network is what theory says, and sampling uses it as theory says."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch

from ssd import SSDPipeline, SSDScheduler
from ssd.analysis.gaussian_data import residual_covariance
from ssd.evaluation import calibrate as command
from ssd.evaluation.calibrate import calibrate, timesteps_of
from ssd.evaluation.denoising import Denoiser
from ssd.evaluation.given_images import ImageBatch
from ssd.operators.cosine_bands import band_means, cosine_bands
from ssd.operators.kernels import dct_matrix
from ssd.process.residuals import AtChange, ResidualTable, adds_noise
from ssd.publishing.saving import load_pipeline

from ..perfect_network import gaussian_images, perfect_pipeline
from .conftest import save_model

NUMBER = 3000


@dataclass
class Images:
    """Some images in one batch."""

    x_0: torch.Tensor

    def __len__(self):
        return len(self.x_0)

    def __iter__(self):
        yield ImageBatch(self.x_0, list(range(len(self.x_0))), None)


@pytest.fixture(scope="module")
def perfect():
    pipeline, covariance = perfect_pipeline()
    return pipeline, covariance, calibrate(Denoiser(pipeline), Images(gaussian_images(covariance, NUMBER)))


def expected_bands(process, covariance, s, t):
    residual = residual_covariance(process, covariance, s, t)
    size = process.size(s)
    basis = torch.kron(dct_matrix(size[0]), dct_matrix(size[1]))
    return torch.nan_to_num(band_means((basis @ residual * basis).sum(dim=1).view(size), cosine_bands(size)))


def assert_measured(found, expected, process, s):
    """Within five standard deviations of a mean of squares: sqrt(2 / (images, frequencies of the band))."""
    counts = torch.bincount(cosine_bands(process.size(s)).flatten(), minlength=8).clamp(min=1)
    assert bool(((found - expected).abs() <= 5 * expected * (2 / (NUMBER * counts)).sqrt() + 1e-12).all())


def test_the_residuals_of_a_perfect_network(perfect):
    pipeline, covariance, table = perfect
    process = pipeline.scheduler.process
    for level, row in enumerate(table.within):
        assert list(row) == timesteps_of(process, level)
        for t in list(row)[::5]:
            assert_measured(row[t], expected_bands(process, covariance, t - 1, t), process, t - 1)
    (t,) = process.required_timesteps
    change = table.changes[t]
    assert_measured(change.bands, expected_bands(process, covariance, t - 1, t), process, t - 1)
    residual = residual_covariance(process, covariance, t - 1, t)
    rows = process.operator(t - 1, t).spectral.covariance(lambda lam: (lam > 0).double()).to_dense()
    null = float((residual.trace() - (rows * residual).sum()) / (64 - 16))
    assert float(change.null) == pytest.approx(null, rel=5 * (2 / (48 * NUMBER)) ** 0.5)


def test_between_the_measured_timesteps_the_logarithm_is_linear(perfect):
    pipeline, _, table = perfect
    low, high = list(table.within[0])[3:5]
    noise = pipeline.scheduler.process.noise
    known = (noise.signal.log() - noise.sigma.log())[[low, (low + high) // 2, high]]
    share = (known[0] - known[1]) / (known[0] - known[2])
    expected = table.within[0][low] ** (1 - share) * table.within[0][high] ** share
    both = table.bands(torch.tensor([low, (low + high) // 2]))
    torch.testing.assert_close(both, torch.stack([table.within[0][low], expected]), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(table.bands((low + high) // 2), expected, rtol=1e-9, atol=1e-12)


def test_a_configuration_gives_the_table_back(perfect):
    pipeline, _, table = perfect
    again = ResidualTable.from_config(pipeline.scheduler.process, json.loads(json.dumps(table.to_config())))
    for t in (5, 300, 700, 990):
        torch.testing.assert_close(again.bands(t), table.bands(t), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("s", "t"), [(300, 400), (749, 750)])
def test_the_noise_of_a_sampler_has_the_measured_spectrum(perfect, s, t):
    """All: the bands' variances. Null: what D sees of it is nothing."""
    pipeline, _, table = perfect
    process = pipeline.scheduler.process
    white = torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)
    dense = table.noise("all", s, t, white).flatten(1)
    bands = table.changes[t].bands if t == 750 else table.bands(t)
    basis = torch.kron(dct_matrix(8), dct_matrix(8))
    expected = basis.T @ (bands[cosine_bands((8, 8))].view(-1, 1) * basis)
    torch.testing.assert_close(dense.T @ dense, expected, rtol=0, atol=1e-12)
    if t == 750:
        torch.testing.assert_close(table.noise("change", s, t, white).flatten(1), dense)
        null = table.noise("null_space", s, t, white)
        torch.testing.assert_close(process.operator(s, t).forward(null), torch.zeros(64, 1, 4, 4).double())


@pytest.mark.parametrize(
    ("kind", "at"), [("none", ""), ("null_space", "change"), ("change", "change"), ("all", "change, within")]
)
def test_where_a_kind_adds_noise(perfect, kind, at):
    process = perfect[0].scheduler.process
    assert adds_noise(process, kind, 749, 750) == ("change" in at)
    assert adds_noise(process, kind, 300, 400) == ("within" in at)
    assert not adds_noise(process, kind, -1, 0)


@pytest.mark.parametrize(("kind", "order"), [("all", 1), ("null_space", 2)])
def test_sampling_with_a_calibration(perfect, kind, order):
    """With it the images' variance is the data's to 5 %, in 10 steps; without it first order has less than 0.9."""
    pipeline, _, table = perfect
    variances = {}
    for residuals in ("none", kind):
        scheduler = SSDScheduler.from_config(
            pipeline.scheduler.config,
            calibration=table.to_config(),
            residual_covariance=residuals,
            solver_order=order,
            timestep_spacing="linspace" if order == 1 else "logsnr",
        )
        scheduler.set_timesteps(10)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4000, 1, 4, 4, generator=generator)
        for t in scheduler.timesteps.tolist():
            size = scheduler.prediction_size(t)
            (output,) = pipeline.unet(x, torch.tensor([t]), output_size=size)
            x = scheduler.step(output, t, x, generator=generator).prev_sample
        variances[residuals] = float(x.square().mean()) / 0.25
    assert abs(variances[kind] - 1) < 0.05
    if order == 1:
        assert variances["none"] < 0.9


def test_other_schedules_are_refused(perfect):
    pipeline, _, table = perfect
    with pytest.raises(ValueError, match="made for another schedule"):
        SSDScheduler.from_config(pipeline.scheduler.config, resolution_gamma=2.0, calibration=table.to_config())
    with pytest.raises(ValueError, match="This is not a calibration"):
        SSDScheduler.from_config(pipeline.scheduler.config, calibration={"within": 3})
    change = AtChange(torch.zeros(8), torch.zeros(8), torch.zeros(()))
    with pytest.raises(ValueError, match="made for another schedule"):
        ResidualTable(pipeline.scheduler.process, [{5: torch.zeros(8)}, {}], {750: change})


def test_the_command_and_what_uses_its_numbers(tmp_path, capsys, run_command):
    model = save_model(tmp_path / "m")
    sample = ("sample/sample_ssd.py", "--model", model, "--num", "2", "--steps", "4", "--device", "cpu")
    done = run_command(*sample, "--residual_covariance", "null_space", "--grid", tmp_path / "a.png")
    done.assert_one_line_error("needs a calibration of this network", "python -m ssd.evaluation.calibrate")
    command.main(["--model", str(model), "--data", "digits", "--num", "6", "--device", "cpu"])
    out = capsys.readouterr().out
    assert "change at t = 750" in out
    assert out.splitlines()[-1] == f"wrote {model}/scheduler/scheduler_config.json, measured on 6 images"
    pipeline = load_pipeline(str(model), "cpu")
    assert pipeline.scheduler.residuals is not None
    for kind in ("null_space", "all"):
        done = run_command(*sample, "--residual_covariance", kind, "--grid", tmp_path / f"{kind}.png")
        assert done.code == 0, done.err
    assert (tmp_path / "null_space.png").read_bytes() != (tmp_path / "all.png").read_bytes()
    again = SSDPipeline.from_pretrained(model)
    assert again.scheduler.config.calibration == pipeline.scheduler.config.calibration


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digits", "--num", "1"], "--num must be at least 2, got 1"),
        (["--data", "digits", "--batch_size", "0"], "--batch_size must be at least 1, got 0"),
        (["--data", "nothing"], "Unknown data set 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, arguments, message):
    model = save_model(tmp_path / "m")
    with pytest.raises(SystemExit) as stop:
        command.main(["--model", str(model), "--device", "cpu", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert len(error.splitlines()) == 1
