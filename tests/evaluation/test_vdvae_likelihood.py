"""Bits per dimension of a VDVAE: on the ruler of the other family, by the same command."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from accelerate import PartialState

from ssd import VDVAEPipeline
from ssd.evaluation.given_images import GivenImages
from ssd.evaluation.vdvae_likelihood import _bounds, estimate_vdvae_bits_per_dim
from ssd.pipeline_vdvae import from_grey_levels
from ssd.publishing.saving import load_any_pipeline, save_pipeline

from ..analysis.small_vdvae import small_vdvae
from ..conftest import run_script
from .conftest import EVAL, save_model

NLL = "sample/eval_nll.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vdvae") / "m"
    save_pipeline(VDVAEPipeline(small_vdvae()), folder)
    return folder


def given(model, **settings):
    pipeline = load_any_pipeline(str(model), "cpu")
    assert isinstance(pipeline, VDVAEPipeline)
    settings = {"model": str(model), "data": "digits", "num": 12} | settings
    return pipeline, GivenImages(**settings).open(pipeline, grey_levels=17)


def estimate(model, importance_samples=1, **settings):
    pipeline, images = given(model, **settings)
    return estimate_vdvae_bits_per_dim(pipeline, images, importance_samples, 0, PartialState(cpu=True))


def test_it_is_the_bound_of_the_model(model):
    """In bits, over the 64 grey pixels of 17 levels: the mean of many draws is within its error of one draw's."""
    pipeline, images = given(model)
    (batch,) = images
    integers = ((batch.x_0 + 1) * 8).round().long()
    assert torch.equal(from_grey_levels(integers, 17), batch.x_0)
    with torch.no_grad():
        draws = torch.stack([pipeline.vdvae.elbo(integers).bits_per_dim for _ in range(50)]).double()
    found = estimate(model)
    error = float(draws.mean(dim=1).std())
    assert abs(found["bits_per_dim"] - float(draws.mean())) < 4 * error
    assert found["bits_per_dim"] == pytest.approx(found["bits_per_dim_nll"] + found["bits_per_dim_rate"])
    assert (found["bits_per_dim_dimensions"], found["bits_per_dim_grey_levels"]) == (64, 17)


def test_images_draw_for_themselves(model):
    pipeline, images = given(model)
    (batch,) = images
    part = batch.__class__(batch.x_0[7:], batch.numbers[7:], None)
    for name, values in _bounds(pipeline.vdvae, part, 4, 0).items():
        np.testing.assert_allclose(values, _bounds(pipeline.vdvae, batch, 4, 0)[name][7:], rtol=1e-4)


def test_more_importance_samples_are_never_worse(model):
    found = estimate(model, 32)
    bounds = [found[f"bits_per_dim_importance_{2**exponent}"] for exponent in range(6)]
    assert all(tighter <= looser for looser, tighter in pairwise(bounds))
    error = found["bits_per_dim_standard_error"] + found["bits_per_dim_importance_1_standard_error"]
    assert abs(bounds[0] - found["bits_per_dim"]) < 4 * error  # the divergences drawn, and in closed form


def test_of_grey_images_one_channel_counts(tmp_path):
    save_pipeline(VDVAEPipeline(small_vdvae(in_channels=3)), tmp_path / "m")
    found = estimate(tmp_path / "m", num=4)
    assert found["bits_per_dim_dimensions"] == 64


def test_the_command(model, tmp_path):
    flags = ["--model", model, "--data", "digits", "--num_valid", "6", "--device", "cpu"]
    done = run_script(NLL, *flags, "--importance_samples", "2", "--out", tmp_path / "nll.json")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"wrote {tmp_path / 'nll.json'}"
    written = json.loads((tmp_path / "nll.json").read_text())
    assert written["metrics"]["bits_per_dim_images"] == 6
    assert written["data"]["part"] == "6 held-out images"
    assert "bits_per_dim_importance_2" in done.out


@pytest.mark.parametrize("flag", ["steps", "draws", "last_timestep", "grey_levels"])
def test_settings_of_the_other_family_are_refused(model, flag):
    done = run_script(NLL, "--model", model, "--data", "digits", "--device", "cpu", f"--{flag}", "9")
    done.assert_one_line_error(f"--{flag} is for models of Scale Space Diffusion", "is a VDVAE: leave it out")


def test_a_vdvae_has_no_bits_per_dim_in_the_other_report(model):
    done = run_script(EVAL, "--model", model, "--ref", "digits", "--metrics", "bits_per_dim", "--device", "cpu")
    done.assert_one_line_error("VDVAEPipeline")


def test_either_family_is_loaded_by_its_class(model, tmp_path):
    other = save_model(tmp_path / "ssd")
    assert [type(load_any_pipeline(str(folder), "cpu")).__name__ for folder in (model, other)] == [
        "VDVAEPipeline",
        "SSDPipeline",
    ]
