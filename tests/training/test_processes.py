"""Every process and network of the paper trains, saves, resumes and samples by the same commands."""

import json

import pytest

from ssd.publishing.saving import load_pipeline

from ..conftest import TINY, run_script
from .runs import TRAIN

CASES = {
    "DDPM, epsilon": [
        "--levels",
        "1",
        "--prediction_type",
        "epsilon",
        "--variance_type",
        "fixed_large",
        "--loss",
        "simple",
    ],
    "DDPM, v": ["--levels", "1", "--prediction_type", "v_prediction"],
    "two levels, v": ["--prediction_type", "v_prediction"],
    "blurring": ["--process", "blurring", "--levels", "1", "--loss", "simple"],
    "corrective noise": ["--process", "corrective_noise"],
    "full U-Net": ["--network", "resized_unet"],
    "gradual": ["--levels", "9", "--min_size", "8"],
    "gradual, full U-Net": ["--levels", "8", "--min_size", "2", "--size_step", "2", "--network", "resized_unet"],
    "listed sizes": ["--levels", "3", "--resolutions", "[16, 11, [6, 5]]"],
    "grey, not square": ["--res", "[16, 12]", "--channels", "1"],
    "grey, not square, gradual": [
        "--res",
        "[16, 12]",
        "--channels",
        "1",
        "--levels",
        "4",
        "--min_size",
        "6",
        "--size_step",
        "2",
    ],
}


@pytest.mark.parametrize("flags", CASES.values(), ids=CASES.keys())
def test_train_resume_and_sample(flags: list[str], tmp_path) -> None:
    out = tmp_path / "run"
    run = [*TINY, "--data", "digits", *flags, "--transition_probability", "0.3", "--out", out]
    for steps in ("2", "3"):
        done = run_script(TRAIN, *run, "--max_steps", steps, "--sample_every", "3", "--sample_steps", "12", "--resume")
        assert done.code == 0, done.err
    assert (out / "samples" / "step_00000003.png").exists()
    pipeline = load_pipeline(str(out))
    assert "Process:" in (out / "README.md").read_text()

    done = run_script(
        *("sample/sample_ssd.py", "--model", out, "--num", "3", "--steps", "12", "--out", tmp_path / "images"),
        *("--grid", tmp_path / "grid.png", "--animation", tmp_path / "growing.gif"),
    )
    assert done.code == 0, done.err
    assert len(list((tmp_path / "images").glob("*.png"))) == 3
    done = run_script(
        *("sample/eval_fid.py", "--model", out, "--ref", "digits", "--features", "pixels", "--num", "12"),
        *("--steps", "12", "--out", tmp_path / "eval"),
    )
    assert done.code == 0, done.err
    size = pipeline.scheduler.size_at(-1)
    report = json.loads(next((tmp_path / "eval").glob("*.json")).read_text())
    assert str(size[0]) in json.dumps(report)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--process", "blurring"], ["--process blurring has one resolution, got 2 levels: use --levels 1"]),
        (["--variance_type", "fixed_large"], ["fixed_large", "one level", "use 'fixed_small'"]),
        (["--resolutions", "[16, 8, 12]", "--levels", "3"], ["must shrink", "list them from the full resolution down"]),
        (["--channels", "2"], ["--channels must be 3 for colour or 1 for grey"]),
        (["--global_batch_size", "0"], ["--global_batch_size must be at least 1"]),
        (["--batch_size", "4"], ["It is gone", "--global_batch_size"]),
    ],
)
def test_bad_combinations_are_one_line_and_write_nothing(flags: list[str], parts: list[str], tmp_path) -> None:
    run_script(TRAIN, *TINY, "--data", "digits", *flags, "--out", tmp_path / "x").assert_one_line_error(*parts)
    assert not (tmp_path / "x").exists()
