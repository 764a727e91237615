"""Preconditioned runs: what they measure, that they continue exactly, and what their log says."""

import json

import pytest
import torch
import yaml

from ssd.analysis.moments import data_moments
from ssd.data import open_dataset
from ssd.publishing.saving import load_pipeline
from ssd.training import measured
from ssd.training.log import read_log

from ..conftest import TINY, run_script
from .runs import GROUPS, TRAIN, final_tensors, largest_difference, run_two

FLAGS = [*TINY, *GROUPS, "--data", "digits", "--transition_probability", "0.3", "--clipped_loss"]
FLAGS += ["--prediction_type", "preconditioned"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Six steps without an interruption."""
    out = tmp_path_factory.mktemp("preconditioned") / "x"
    done = run_script(TRAIN, *FLAGS, "--max_steps", "6", "--out", out)
    assert done.code == 0, done.err
    return out


def test_a_run_stores_the_moments_of_its_images(whole) -> None:
    stored = json.loads((whole / "scheduler/scheduler_config.json").read_text())["data_moments"]
    assert stored == yaml.safe_load((whole / "train_config.yaml").read_text())["data_moments"]
    dataset = open_dataset("digits", 16)
    images = [torch.as_tensor(dataset[index]["image"]) for index in range(len(dataset))]
    expected = data_moments(images, load_pipeline(str(whole)).scheduler.process).to_config()
    assert {name: pytest.approx(values) for name, values in expected.items()} == stored


def test_time_is_up_and_the_run_continues_exactly(whole, tmp_path, monkeypatch) -> None:
    out = tmp_path / "x"
    stopped = run_script(TRAIN, *FLAGS, "--max_steps", "6", "--max_minutes", "0.0001", "--out", out)
    assert stopped.code == 0, stopped.err
    assert "Stopped by --max_minutes after 1 steps" in stopped.out

    def never(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(measured, "data_moments", never)
    resumed = run_script(TRAIN, *FLAGS, "--max_steps", "6", "--resume", "--out", out)
    assert resumed.code == 0, resumed.err
    assert largest_difference(final_tensors(out, 6), final_tensors(whole, 6)) == 0


@pytest.mark.slow
def test_two_processes_train_alike(whole, tmp_path) -> None:
    done = run_two(tmp_path / "x", *FLAGS, "--max_steps", "6")
    assert done.code == 0, done.err
    assert largest_difference(final_tensors(tmp_path / "x", 6), final_tensors(whole, 6)) < 1e-5


def test_the_log_shows_which_level_learns(whole) -> None:
    rows = read_log(whole / "log.csv")
    residuals = [float(row[f"residual_{size}"]) for row in rows for size in ("16x16", "8x8") if row[f"residual_{size}"]]
    assert len(residuals) == len(rows)  # a step has one level
    assert all(0.2 < residual < 2 for residual in residuals)  # an untrained network is about the linear estimate
    for row in rows:
        shares = [float(row[f"gradient_share_{size}"]) for size in ("16x16", "8x8")]
        assert sorted(shares) == [0, 1]  # of a single step


def test_other_processes_have_no_linear_estimate(tmp_path) -> None:
    done = run_script(TRAIN, *FLAGS, "--process", "corrective_noise", "--out", tmp_path / "x")
    done.assert_one_line_error("--prediction_type preconditioned is for --process scale_space, got corrective_noise")


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        ('{"mean": [0.0, 0.0, 0.0], "variances": [0.1]}', "one variance for each of the 2 levels, got 1"),
        ('{"mean": [0.0], "variances": [0.1, 0.1]}', "the mean of 1 channels, but images have --channels 3"),
    ],
)
def test_moments_of_the_command_line_must_fit(tmp_path, moments, message) -> None:
    done = run_script(TRAIN, *FLAGS, "--data_moments", moments, "--out", tmp_path / "x")
    done.assert_one_line_error(message)
