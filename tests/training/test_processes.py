"""Every process and network of the paper trains, saves, resumes and samples by the same commands."""

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
    "preconditioned": ["--prediction_type", "preconditioned", "--clipped_loss"],
    "preconditioned, classes": ["--prediction_type", "preconditioned", "--class_conditional"],
    "preconditioned, grey, listed sizes": [
        *("--prediction_type", "preconditioned", "--channels", "1", "--levels", "3", "--resolutions", "[16, 11, 8]")
    ],
    "blurring": ["--process", "blurring", "--levels", "1", "--loss", "simple"],
    "corrective noise": ["--process", "corrective_noise"],
    "full U-Net": ["--network", "resized_unet"],
    "full U-Net, classes": ["--network", "resized_unet", "--process", "corrective_noise", "--class_conditional"],
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
def test_train_resume_and_load(flags: list[str], tmp_path) -> None:
    run = [*TINY, "--data", "digits", *flags, "--transition_probability", "0.3", "--out", tmp_path]
    for steps in ("1", "2"):
        done = run_script(TRAIN, *run, "--max_steps", steps, "--resume")
        assert done.code == 0, done.err
    pipeline = load_pipeline(str(tmp_path))
    pipeline.set_progress_bar_config(disable=True)
    size, least = pipeline.scheduler.size_at(-1), len(pipeline.scheduler.process.required_timesteps) + 1
    labels = [3] if "--class_conditional" in flags else None
    images = pipeline(1, num_inference_steps=least, class_labels=labels, output_type="pt").images
    assert images.shape == (1, pipeline.unet.config.in_channels, *size)
    assert f"Process: {type(pipeline.scheduler).__name__}" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("name", ["blurring", "corrective noise", "grey, not square, gradual"])
def test_every_command_takes_every_process(name: str, tmp_path) -> None:
    model = tmp_path / "run"
    flags = [*TINY, "--data", "digits", *CASES[name], "--sample_every", "1", "--sample_steps", "4", "--out", model]
    done = run_script(TRAIN, *flags, "--max_steps", "1")
    assert done.code == 0, done.err
    assert (model / "samples" / "step_00000001.png").exists()
    done = run_script(
        *("sample/sample_ssd.py", "--model", model, "--num", "3", "--steps", "4", "--out", tmp_path / "images"),
        *("--grid", tmp_path / "grid.png", "--animation", tmp_path / "growing.gif"),
    )
    assert done.code == 0, done.err
    assert len(list((tmp_path / "images").glob("*.png"))) == 3
    done = run_script(
        *("sample/eval_fid.py", "--model", model, "--ref", "digits", "--features", "pixels", "--num", "8"),
        *("--steps", "4", "--out", tmp_path / "eval"),
    )
    assert done.code == 0, done.err
    assert (tmp_path / "eval" / "report.json").exists()


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
