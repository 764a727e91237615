"""Schedules from data and schedules that move, from the first step of a run to the images of its model."""

import json
import re

import pytest
import yaml

from ssd.process.switches import switches_of_variance
from ssd.publishing.saving import load_pipeline
from ssd.sampling import compiling
from ssd.scheduling_blurring import BlurringScheduler
from ssd.scheduling_ssd import SSDScheduler
from ssd.training import measured
from ssd.training.build import build_scheduler
from ssd.training.config import TrainConfig

from ..conftest import TINY, run_script
from .runs import GROUPS, TRAIN, final_tensors, largest_difference, run_two

FLAGS = [TRAIN, *TINY, *GROUPS, "--data", "digits"]
OF_DATA = ["--resolution_schedule", "data"]
MOVING = ["--switches", "[400]", "--switch_jitter", "0.5"]
SAMPLE, EVAL = "sample/sample_ssd.py", "sample/eval_fid.py"


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """A run whose switch moves in 200..700, resumed after two of four steps."""
    out = tmp_path_factory.mktemp("moving") / "x"
    for more in (["--max_steps", "2"], ["--max_steps", "4", "--resume"]):
        done = run_script(*FLAGS, *MOVING, "--transition_probability", "0.3", *more, "--out", out)
        assert done.code == 0, done.err
    return out


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

    monkeypatch.setattr(measured, "measure", never)
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
        (["--switch_jitter", "0.6"], ("--switch_jitter must be in [0, 0.5], got 0.6",)),
        (["--switch_jitter", "-0.1"], ("--switch_jitter must be at least 0",)),
        (
            ["--switch_jitter", "0.1", "--process", "corrective_noise"],
            ("--switch_jitter is for --process scale_space",),
        ),
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
        (["--switch_jitter", "0.1", "--levels", "1"], "switch_jitter 0.1: it has no effect with one level."),
        ([*OF_DATA, "--levels", "1"], "resolution_schedule data: it has no effect with one level."),
    ):
        done = run_script(*FLAGS, *flags, "--dry_run", "--out", tmp_path / "x")
        assert done.code == 0, done.err
        assert note in done.out


def test_a_schedule_that_was_not_measured_is_no_process() -> None:
    config = TrainConfig(res=16, data="digits", out="x", levels=2, resolution_schedule="data")
    with pytest.raises(ValueError, match="is measured when a training run begins"):
        build_scheduler(TrainConfig(**(vars(config) | {"block_out_channels": [32, 32]})))


def test_a_run_with_moving_switches_resumes_exactly(moving, tmp_path) -> None:
    whole = [*FLAGS, *MOVING, "--transition_probability", "0.3", "--max_steps", "4", "--out", tmp_path / "whole"]
    assert run_script(*whole).code == 0
    assert largest_difference(final_tensors(moving, 4), final_tensors(tmp_path / "whole", 4)) == 0
    still = [*FLAGS, *MOVING[:2], "--transition_probability", "0.3", "--max_steps", "4", "--out", tmp_path / "still"]
    assert run_script(*still).code == 0
    assert largest_difference(final_tensors(moving, 4), final_tensors(tmp_path / "still", 4)) > 0
    assert json.loads((moving / "scheduler/scheduler_config.json").read_text())["switch_jitter"] == 0.5
    assert "Switches: a call with `switches=[..]` may move them, within 200..700" in (moving / "README.md").read_text()


def test_one_model_has_several_speeds(moving) -> None:
    pipeline = load_pipeline(str(moving))
    pipeline.set_progress_bar_config(disable=True)

    def sizes(switches) -> list[tuple[int, int]]:
        seen = []

        def note(_pipeline, _index, _timestep, tensors):
            seen.append(tensors["latents"].shape[-1])

        timesteps = [999, *range(900, 0, -100)]
        if switches and switches[0] not in timesteps:
            timesteps = sorted([*timesteps, *switches], reverse=True)
        pipeline(1, timesteps=timesteps, switches=switches, callback_on_step_end=note, output_type="latent")
        return seen

    assert sizes(None).count(8) == 6  # x_s for s = 900, 800, .., 400
    assert sizes([200]).count(8) == 8
    assert sizes([700]).count(8) == 3
    assert sizes(None).count(8) == 6  # nothing stays behind
    with pytest.raises(ValueError, match=r"Switch 1 must be in 200\.\.700, got 199"):
        sizes([199])


def test_the_commands_sample_with_other_switches(moving, tmp_path) -> None:
    flags = ["--model", moving, "--num", "4", "--steps", "4", "--device", "cpu"]
    out = tmp_path / "out"
    assert run_script(SAMPLE, *flags, "--out", out, "--switches", "[250]").code == 0
    assert json.loads((out / "samples.json").read_text())["switches"] == [250]
    run_script(SAMPLE, *flags, "--out", out, "--switches", "[300]").assert_one_line_error(
        "another run", "switches is [250] there and [300] here"
    )
    run_script(SAMPLE, *flags, "--out", out).assert_one_line_error("switches is [250] there and None here")
    run_script(SAMPLE, *flags, "--out", tmp_path / "b", "--switches", "[800]").assert_one_line_error(
        "--switches [800] does not fit this model", "Switch 1 must be in 200..700, got 800"
    )
    measure = [*flags, "--ref", "digits", "--features", "pixels", "--metrics", "fid,levels", "--switches", "[250]"]
    done = run_script(EVAL, *measure, "--out", tmp_path / "eval")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "eval/report.json").read_text())
    assert report["samples"]["switches"] == report["settings"]["switches"] == [250]
    assert any("8x8" in name for name in report["metrics"]), report["metrics"]


def test_compiling_runs_the_routes_of_these_switches(moving, monkeypatch) -> None:
    monkeypatch.setattr(compiling, "compile_network", lambda *_: None)
    pipeline = load_pipeline(str(moving), "cpu")
    pipeline.scheduler.use_switches([250])
    compiling.compile_pipeline(pipeline, [2], 2)
    assert {250} <= set(pipeline.scheduler.timesteps.tolist())
    assert pipeline.scheduler.size_at(250) == (8, 8)


def test_processes_without_levels_have_no_switches() -> None:
    with pytest.raises(ValueError, match="BlurringScheduler has one resolution schedule: leave switches out"):
        BlurringScheduler(sample_size=16).set_timesteps(5, switches=[3])


@pytest.mark.slow
def test_two_processes_draw_the_same_switches(moving, tmp_path) -> None:
    flags = [*TINY, *GROUPS, "--data", "digits", *MOVING, "--transition_probability", "0.3", "--max_steps", "4"]
    done = run_two(tmp_path / "x", *flags)
    assert done.code == 0, done.err
    assert largest_difference(final_tensors(tmp_path / "x", 4), final_tensors(moving, 4)) < 1e-5
