"""Schedules from data and schedules that move, from the first step of a run to the images of its model."""

import json
import re

import pytest
import yaml

from ssd.process.switches import switches_of_variance
from ssd.publishing.saving import load_pipeline
from ssd.scheduling_ssd import SSDScheduler
from ssd.training import switches
from ssd.training.build import build_scheduler
from ssd.training.config import TrainConfig

from ..conftest import TINY, run_script
from .runs import TRAIN, final_tensors, largest_difference

FLAGS = [TRAIN, *TINY, "--data", "digits"]
OF_DATA = ["--resolution_schedule", "data"]


def stored(out) -> list[int]:
    return json.loads((out / "scheduler/scheduler_config.json").read_text())["switches"]


def test_a_run_measures_its_switches_once(tmp_path, monkeypatch) -> None:
    out = tmp_path / "x"
    done = run_script(*FLAGS, *OF_DATA, "--max_steps", "2", "--out", out)
    assert done.code == 0, done.err
    (note,) = [line for line in done.out.splitlines() if "finest details" in line]
    variance = float(re.search(r"1797 images have the variance ([\d.e-]+)", note)[1])
    assert stored(out) == yaml.safe_load((out / "train_config.yaml").read_text())["switches"]
    assert stored(out) == pytest.approx(
        switches_of_variance(SSDScheduler(num_levels=2).process.noise, variance, 2), abs=1
    )
    assert f"begin at the timesteps {stored(out)}" in note
    assert load_pipeline(str(out)).scheduler.process.required_timesteps == tuple(stored(out))
    assert f"coarser levels from timesteps {stored(out)[0]} on" in (out / "README.md").read_text()

    def never(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(switches, "measure", never)
    resumed = run_script(*FLAGS, *OF_DATA, "--max_steps", "4", "--resume", "--out", out)
    assert resumed.code == 0, resumed.err
    # The settings of the run, written out, make the same run.
    whole = ["--config", out / "train_config.yaml", "--max_steps", "4", "--out", tmp_path / "y"]
    assert run_script(TRAIN, *whole).code == 0
    assert largest_difference(final_tensors(out, 4), final_tensors(tmp_path / "y", 4)) == 0


def test_details_may_be_weaker_or_stronger(tmp_path) -> None:
    found = []
    for theta in ("0.1", "0.001"):
        out = tmp_path / theta
        assert run_script(*FLAGS, *OF_DATA, "--switch_theta", theta, "--max_steps", "1", "--out", out).code == 0
        found += stored(out)
    assert found[0] + 50 < found[1]


def test_switches_of_the_command_line(tmp_path) -> None:
    out, flags = tmp_path / "x", [*FLAGS, "--max_steps", "1", "--out", tmp_path / "x"]
    assert run_script(*flags, "--switches", "[300]").code == 0
    assert stored(out) == [300]
    resume = ["--resume", "--max_steps", "2"]
    run_script(*flags, *resume, "--switches", "[301]").assert_one_line_error("--switches [301]", "started with [300]")
    run_script(*flags, *resume).assert_one_line_error("--switches None", "started with [300]")
    assert run_script(*flags, *resume, "--switches", "[300]").code == 0


@pytest.mark.parametrize(
    ("flags", "messages"),
    [
        (["--switches", "[300, 400]"], ("2 levels need 1 ascending switch timesteps", "[300, 400]")),
        (["--switches", "[1000]"], ("must lie in 1..999", "[1000]")),
        ([*OF_DATA, "--switch_theta", "0"], ("--switch_theta must be positive",)),
        ([*OF_DATA, "--switch_theta", "1e-12"], ("theta=1e-12 is too small",)),
        ([*OF_DATA, "--process", "corrective_noise"], ("--resolution_schedule data is for --process scale_space",)),
        (["--switches", "[300]", "--process", "corrective_noise"], ("--switches is for --process scale_space",)),
        ([*OF_DATA, "--levels", "5"], ("--levels 5 is too many",)),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(tmp_path, flags, messages) -> None:
    run_script(*FLAGS, *flags, "--out", tmp_path / "x").assert_one_line_error(*messages)
    assert not (tmp_path / "x").exists()


def test_settings_without_effect_are_named(tmp_path) -> None:
    for flags, note in (
        (["--switch_theta", "0.1"], "switch_theta 0.1: it has no effect without --resolution_schedule data."),
        ([*OF_DATA, "--resolution_gamma", "2"], "resolution_gamma 2.0: it has no effect with --resolution_schedule"),
        (["--switches", "[9]", "--resolution_gamma", "2"], "resolution_gamma 2.0: it has no effect with --switches."),
        ([*OF_DATA, "--levels", "1"], "resolution_schedule data: it has no effect with one level."),
    ):
        done = run_script(*FLAGS, *flags, "--dry_run", "--out", tmp_path / "x")
        assert done.code == 0, done.err
        assert note in done.out


def test_a_schedule_that_was_not_measured_is_no_process() -> None:
    config = TrainConfig(res=16, data="digits", out="x", levels=2, resolution_schedule="data")
    with pytest.raises(ValueError, match="is measured when a training run begins"):
        build_scheduler(TrainConfig(**(vars(config) | {"block_out_channels": [32, 32]})))
