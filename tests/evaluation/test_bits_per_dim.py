"""Bits per dimension: the estimate against the closed form, its standard error, and the command."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import torch
from accelerate import PartialState

from ssd.analysis.gaussian_bound import expected_bound
from ssd.evaluation.decoding import _best_width, possible_ends
from ssd.evaluation.denoising import Denoiser
from ssd.evaluation.given_images import GivenImages
from ssd.evaluation.likelihood import (
    LikelihoodBound,
    LikelihoodSettings,
    estimate_bits_per_dim,
    stretches,
    summarise,
)
from ssd.process.spacing import logsnr_timesteps
from ssd.publishing.saving import load_pipeline
from ssd.scheduling_ssd import SSDScheduler

from ..conftest import run_script
from ..perfect_network import gaussian_images, perfect_pipeline
from .conftest import EVAL, save_model

NLL = "sample/eval_nll.py"


@pytest.mark.parametrize(("number", "draws"), [(30, 30), (200, 12)])
def test_the_estimate_is_unbiased(number, draws):
    """Gaussian images and a perfect network: every part within four standard errors of its expectation."""
    pipeline, covariance = perfect_pipeline()
    process = pipeline.scheduler.process
    chain = logsnr_timesteps(process, number)
    images = gaussian_images(covariance, 400)
    bound = LikelihoodBound(Denoiser(pipeline), chain, draws, calibrated=False, widths={chain[-1]: 0.01})
    parts = bound(images, range(400)).parts
    expected = expected_bound(process, covariance, chain)
    within = sum(value for name, value in parts.items() if name.startswith("within")) / 64
    change = parts["change_4x4_to_8x8"] / 64
    for found, name in ((within, "within"), (change, "change"), (parts["prior"] / 64, "prior")):
        error = float(found.std() / math.sqrt(len(found)))
        assert abs(float(found.mean()) - expected[name]) < 4 * error


def test_the_steps_between_ends_are_parts_of_the_chain():
    """Wherever the chain ends, its expectation is that of the shorter chain."""
    pipeline, covariance = perfect_pipeline()
    process = pipeline.scheduler.process
    chain = logsnr_timesteps(process, 40)
    ends = possible_ends(process, chain)
    assert len(ends) > 3
    images = gaussian_images(covariance, 400)
    bound = LikelihoodBound(Denoiser(pipeline), chain, 40, calibrated=False, widths=dict.fromkeys(ends, 0.01))
    terms = bound(images, range(400))
    for number, end in enumerate(ends):
        within = [part / 64 for name, part in terms.at(number, "within_8x8").items() if name.startswith("within")]
        found = torch.stack(within).sum(dim=0)
        expected = expected_bound(process, covariance, chain[: chain.index(end) + 1])["within"]
        assert abs(float(found.mean()) - expected) < 4 * float(found.std() / math.sqrt(len(found)))


def test_the_tightest_end_counts(model):
    """Of whole grey levels it is not the one with the least noise; and a given end is taken as it is."""
    pipeline = load_pipeline(str(model), "cpu")
    images = GivenImages(model=str(model), data="digits", num=8).open(pipeline, grey_levels=3)
    found = {
        last: estimate_bits_per_dim(
            pipeline, images, LikelihoodSettings(draws=4, last_timestep=last), 0, PartialState(cpu=True)
        )
        for last in (None, 0)
    }
    assert found[0]["bits_per_dim_last_timestep"] == 0
    assert found[None]["bits_per_dim_last_timestep"] > 0
    assert found[None]["bits_per_dim"] < found[0]["bits_per_dim"]


def test_the_fitted_width_is_the_best_one():
    """Among its neighbours, for errors of a Gaussian of known width."""
    x_0 = torch.zeros(20000)
    error = 0.2 * torch.randn(20000, generator=torch.Generator().manual_seed(0))
    assert _best_width(x_0, error, 256) == pytest.approx(0.2, rel=0.06)


def test_the_standard_error_shrinks_with_the_root_of_the_images():
    parts = {"prior": torch.randn(4000, generator=torch.Generator().manual_seed(0)).double()}
    errors = [summarise([{"prior": parts["prior"][:n]}], 64, 3)["bits_per_dim_standard_error"] for n in (1000, 4000)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)


def test_images_draw_for_themselves():
    """Whatever the batch, an image has its own steps and noise."""
    pipeline, covariance = perfect_pipeline()
    chain = logsnr_timesteps(pipeline.scheduler.process, 50)
    images = gaussian_images(covariance, 6)
    bound = LikelihoodBound(Denoiser(pipeline), chain, 10, calibrated=False, widths={chain[-1]: 0.01})
    together, apart = (bound(images[first:], range(first, 6)).at(0, "within_8x8") for first in (0, 4))
    for name, values in apart.items():
        torch.testing.assert_close(values, together[name][4:], rtol=1e-4, atol=1e-4)


def test_every_step_is_in_one_stretch():
    process = SSDScheduler(sample_size=16, num_levels=3).process
    chain = logsnr_timesteps(process, 1000)
    found = stretches(process, chain, 40)
    assert [step for stretch in found for step in stretch] == list(pairwise(chain))
    assert len(found) <= 45
    assert all(len({(process.level(t), process.level(s)) for t, s in stretch}) == 1 for stretch in found)
    assert [len(stretch) for stretch in found if stretch[0][0] in process.required_timesteps] == [1, 1]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("nll") / "m")


def test_the_command(model, tmp_path):
    flags = ["--model", model, "--data", "digits", "--num", "6", "--draws", "5", "--device", "cpu"]
    done = run_script(NLL, *flags, "--out", tmp_path / "nll.json")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"wrote {tmp_path / 'nll.json'}"
    metrics = json.loads((tmp_path / "nll.json").read_text())["metrics"]
    parts = [v for k, v in metrics.items() if k.startswith(("bits_per_dim_within", "bits_per_dim_change"))]
    total = sum(parts) + metrics["bits_per_dim_prior"] + metrics["bits_per_dim_decoder"]
    assert metrics["bits_per_dim"] == pytest.approx(total)
    assert metrics["bits_per_dim_images"] == 6
    assert metrics["bits_per_dim_dimensions"] == 256  # digits are grey: one channel counts
    assert metrics["bits_per_dim_covariance"] == "theorem 3"
    again = run_script(NLL, *flags, "--batch_size", "4")
    assert again.out.splitlines()[0].split()[1] == done.out.splitlines()[0].split()[1]


def test_as_a_metric_of_a_report(model, tmp_path):
    done = run_script(
        EVAL, "--model", model, "--ref", "digits", "--num", "8", "--steps", "3", "--metrics", "bits_per_dim,fid",
        "--features", "pixels", "--device", "cpu", "--out", tmp_path / "m.json", "--likelihood_images", "4",
    )  # fmt: skip
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "m.json").read_text())["metrics"]
    assert metrics["bits_per_dim"] > 0
    assert metrics["bits_per_dim_images"] == 4


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--steps", "1"], ["--steps 1 does not fit this model", "2..1000"]),
        (["--draws", "0"], ["--draws must be at least 1, got 0"]),
        (["--covariance", "calibrated"], ["needs a calibration", "python -m ssd.evaluation.calibrate"]),
        (["--out", "x.txt"], ["--out x.txt must end in .json"]),
        (["--last_timestep", "999"], ["--last_timestep must be of the finest level", "got 999"]),
        (["--grey_levels", "1"], ["--grey_levels must be in 2..256, got 1"]),
        (["--num_valid", "1797"], ["Of 1797 images between 1 and 1796 can be held out, got 1797"]),
        (["--importance_samples", "6"], ["--importance_samples must be 1, 2, 4, 8", "got 6"]),
        (["--importance_samples", "4"], ["--importance_samples is for VDVAE", "leave it out"]),
    ],
)
def test_bad_input_is_one_line(model, arguments, parts):
    done = run_script(NLL, "--model", model, "--data", "digits", "--num", "4", "--device", "cpu", *arguments)
    done.assert_one_line_error(*parts)


def test_the_metric_needs_a_model_and_images(tmp_path):
    (tmp_path / "images").mkdir()
    done = run_script(EVAL, "--images", tmp_path / "images", "--ref", "digits", "--metrics", "bits_per_dim")
    done.assert_one_line_error("--metrics bits_per_dim needs a model")
