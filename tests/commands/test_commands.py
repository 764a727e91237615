"""The commands as a user runs them: one round trip with real files, and everything that can be wrong."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..conftest import ROOT, TINY

TRAIN, SAMPLE, EVAL = "train/train_ssd.py", "sample/sample_ssd.py", "sample/eval_fid.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A tiny run on digits, through `accelerate launch` as a user starts it."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", TRAIN, *TINY]
    command += ["--data", "digits", "--max_steps", "6", "--save_every", "3", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_training_writes_what_it_announces(trained) -> None:
    for name in ("model_index.json", "unet", "scheduler", "log.csv", "train_config.yaml", "tensorboard"):
        assert (trained / name).exists(), name
    names = [path.name for path in sorted((trained / "checkpoints").iterdir())]
    assert names == ["latest", "step_00000003", "step_00000006"]
    assert "16 x 16, 8 x 8" in (trained / "README.md").read_text()
    rows = list(csv.DictReader((trained / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "loss_16x16", "loss_8x8", "images_per_second"} <= set(rows[0])
    assert list((trained / "tensorboard").rglob("events*"))


def test_sampling_is_the_same_whatever_the_batch(trained, tmp_path, run_command) -> None:
    for batch, folder in (("2", "a"), ("5", "b")):
        done = run_command(
            SAMPLE, "--model", trained, "--num", "5", "--seed", "3", "--steps", "4", "--batch_size", batch,
            "--out", tmp_path / folder, "--grid", tmp_path / f"{folder}.png", "--animation", tmp_path / f"{folder}.gif",
        )  # fmt: skip
        assert done.code == 0, done.err
        assert f"wrote 5 images to {tmp_path / folder}" in done.out
    for index in range(5):
        one, other = (np.array(Image.open(tmp_path / f / f"{index:06d}.png")) for f in ("a", "b"))
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), np.array(Image.open(tmp_path / "b.png")))
    assert Image.open(tmp_path / "a.gif").n_frames >= 2


def test_sampling_with_half_precision_weights(trained, tmp_path, run_command) -> None:
    pictures = []
    for dtype in ("float32", "bfloat16"):
        grid = tmp_path / f"{dtype}.png"
        done = run_command(SAMPLE, "--model", trained, "--num", "4", "--steps", "4", "--dtype", dtype, "--grid", grid)
        assert done.code == 0, done.err
        pictures.append(np.array(Image.open(grid), dtype=float))
    assert 0 < abs(pictures[0] - pictures[1]).mean() < 8
    done = run_command(SAMPLE, "--model", trained, "--dtype", "int8", "--grid", tmp_path / "x.png")
    done.assert_one_line_error("dtype", "bfloat16")


def test_evaluation_writes_its_numbers(trained, tmp_path, run_command) -> None:
    done = run_command(
        EVAL, "--model", trained, "--ref", "digits", "--num", "20", "--steps", "3", "--out", tmp_path / "m.json"
    )
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "m.json").read_text())["metrics"]
    assert metrics["frechet_distance_pixels"] > 0
    assert (metrics["num_generated"], metrics["num_reference"]) == (20, 1797)
    assert sum(metrics["digit_shares"]) == pytest.approx(1)


def test_a_folder_of_images_trains(image_folder, tmp_path, run_command) -> None:
    done = run_command(TRAIN, *TINY, "--data", f"folder:{image_folder}", "--out", tmp_path / "x", "--max_steps", "2")
    assert done.code == 0, done.err
    assert (tmp_path / "x" / "model_index.json").exists()


def test_sample_grids_are_drawn_on_the_way(tmp_path, run_command) -> None:
    flags = [*TINY, "--data", "digits", "--out", tmp_path / "x", "--max_steps", "2"]
    assert run_command(TRAIN, *flags, "--sample_every", "1", "--sample_steps", "2").code == 0
    names = [path.name for path in sorted((tmp_path / "x" / "samples").iterdir())]
    assert names == [f"step_{step:08d}{kind}.png" for step in (1, 2) for kind in ("", "_raw")]


def test_dry_run_says_everything_and_writes_nothing(tmp_path, run_command) -> None:
    flags = [*TINY, "--data", "digits", "--out", tmp_path / "x", "--max_steps", "2"]
    done = run_command(TRAIN, *flags, "--dry_run", "true")
    assert done.code == 0
    for part in ("max_steps: 2", "16 x 16", "8 x 8 -> 16 x 16", "GFLOPs", "M parameters", "log.csv", "1797 images"):
        assert part in done.out
    assert not (tmp_path / "x").exists()


BAD_TRAINING = {
    "too many levels": (["--res", "32", "--levels", "7"], ["--levels 7", "32 pixels", "largest number of levels is 3"]),
    "cannot halve": (["--res", "18", "--block_out_channels", "[32,32,32]"], ["divisible by 4", "18 x 18"]),
    "no default widths": (["--res", "20"], ["--res 20", "from 32 pixels on", "--block_out_channels"]),
    "missing folder": (["--data", "folder:/no/such/folder"], ["/no/such/folder", "does not exist"]),
    "unknown data": (["--data", "mnist"], ["'mnist'", "digits, folder:PATH, npz:PATH"]),
    "unknown flag": (["--globalbatchsize", "3"], ["--globalbatchsize", "Did you mean 'global_batch_size'?"]),
    "wrong type": (["--global_batch_size", "many"], ["global_batch_size", "many"]),
    "wrong choice": (["--downsample_kernel", "cubic"], ["cubic", "bilinear"]),
    "wrong number": (["--learning_rate", "-1"], ["--learning_rate must be positive, got -1"]),
    "missing config": (["--config", "/no/such.yaml"], ["/no/such.yaml"]),
    "curve and gamma": (["--resolution_schedule", "tanh_like"], ["resolution_gamma >= 1"]),
}


@pytest.mark.parametrize("name", BAD_TRAINING)
def test_bad_training_input(name: str, tmp_path, run_command) -> None:
    flags, parts = BAD_TRAINING[name]
    base = ["--res", "16", "--levels", "2", "--data", "digits", "--block_out_channels", "[32,32]"]
    if "--res" in flags:
        base = ["--data", "digits"]
    done = run_command(TRAIN, *base, "--out", tmp_path / "x", "--max_steps", "2", *flags)
    done.assert_one_line_error(*parts)
    assert not (tmp_path / "x").exists()


def test_unknown_key_in_a_yaml_file(tmp_path, run_command) -> None:
    (tmp_path / "a.yaml").write_text("res: 16\ndata: digits\nout: x\nlearning_rat: 0.1\n")
    run_command(TRAIN, "--config", tmp_path / "a.yaml").assert_one_line_error("learning_rat", "'learning_rate'")
    (tmp_path / "b.yaml").write_text("res: [16\n")
    run_command(TRAIN, "--config", tmp_path / "b.yaml").assert_one_line_error("parsing config", "line 1")
    (tmp_path / "c.yaml").write_text("")
    run_command(TRAIN, "--config", tmp_path / "c.yaml").assert_one_line_error(
        "is not a list of settings", "it is empty"
    )


def test_a_bare_folder_and_a_home_folder(tmp_path, image_folder, run_command, monkeypatch) -> None:
    flags = [*TINY, "--out", tmp_path / "x", "--dry_run", "true", "--data"]
    run_command(TRAIN, *flags, image_folder).assert_one_line_error(f"did you mean folder:{image_folder}?")
    monkeypatch.setenv("HOME", str(image_folder.parent))
    done = run_command(TRAIN, *flags, f"folder:~/{image_folder.name}")
    assert done.code == 0, done.err


def test_settings_without_effect_are_named(tmp_path, run_command) -> None:
    flags = [*TINY, "--data", "digits", "--out", tmp_path / "x", "--dry_run", "true", "--attention_resolutions"]
    assert "note: attention_resolutions [7]: no stage" in run_command(TRAIN, *flags, "[7,8]").out
    assert "note:" not in run_command(TRAIN, *flags, "[8]").out
    more = ["--levels", "1", "--resolution_gamma", "2", "--loss", "simple", "--max_snr", "3", "--size_step", "2"]
    said = run_command(TRAIN, *flags, "[8]", *more, "--network", "resized_unet", "--decoder_exit", "full").out
    assert [line for line in said.splitlines() if line.startswith("note:")] == [
        "note: resolution_gamma 2.0: it has no effect with one level.",
        "note: decoder_exit full: it has no effect with --network resized_unet.",
        "note: max_snr 3.0: it has no effect with --loss simple.",
        "note: size_step 2: it has no effect without --min_size.",
    ]


def test_required_flags_are_named(run_command) -> None:
    run_command(TRAIN, "--res", "16").assert_one_line_error("data", "out")


def test_bad_data_folders(tmp_path, image_folder, run_command) -> None:
    (tmp_path / "empty").mkdir()
    flags = [*TINY, "--max_steps", "2", "--out", tmp_path / "x", "--data"]
    run_command(TRAIN, *flags, f"folder:{tmp_path / 'empty'}").assert_one_line_error("is empty")
    (image_folder / "notes.png").write_text("hello")
    run_command(TRAIN, *flags, f"folder:{image_folder}").assert_one_line_error("notes.png is not an image")
    assert not (tmp_path / "x").exists()


def test_a_folder_with_another_run_is_safe(trained, run_command) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    flags = [*TINY, "--data", "digits", "--out", trained, "--max_steps", "9"]
    run_command(TRAIN, *flags).assert_one_line_error("holds another run", "--resume", "--overwrite")
    run_command(TRAIN, *flags, "--resume", "true", "--weight_decay", "0.5").assert_one_line_error(
        "--weight_decay 0.5", "started with 0.0"
    )
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()} == before


def test_a_folder_with_other_things_is_never_touched(tmp_path, run_command) -> None:
    (tmp_path / "x" / "samples").mkdir(parents=True)
    (tmp_path / "x" / "samples" / "mine.txt").write_text("keep me")
    flags = [*TINY, "--data", "digits", "--max_steps", "2", "--out", tmp_path / "x"]
    for more in ([], ["--overwrite", "true"], ["--resume", "true"]):
        run_command(TRAIN, *flags, *more).assert_one_line_error("is not empty and does not hold a run")
    assert (tmp_path / "x" / "samples" / "mine.txt").exists()


def test_an_out_folder_that_cannot_be_written(tmp_path, run_command) -> None:
    (tmp_path / "file").write_text("")
    flags = [*TINY, "--data", "digits", "--max_steps", "2", "--out"]
    run_command(TRAIN, *flags, tmp_path / "file" / "x").assert_one_line_error("cannot be a folder", "file is a file")
    run_command(TRAIN, *flags, tmp_path / "file").assert_one_line_error("is a file")


def test_overwrite_starts_anew_and_keeps_foreign_files(tmp_path, run_command) -> None:
    flags = [*TINY, "--data", "digits", "--out", tmp_path / "x", "--max_steps", "2"]
    assert run_command(TRAIN, *flags).code == 0
    (tmp_path / "x" / "mine.txt").write_text("keep me")
    done = run_command(TRAIN, *flags, "--overwrite", "true", "--learning_rate", "0.01")
    assert done.code == 0, done.err
    assert (tmp_path / "x" / "mine.txt").exists()
    assert len((tmp_path / "x" / "log.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("script", [SAMPLE, EVAL])
def test_a_model_that_is_none(script: str, tmp_path, trained, run_command) -> None:
    flags = ["--ref", "digits"] if script == EVAL else ["--grid", tmp_path / "g.png"]
    run_command(script, "--model", tmp_path, *flags).assert_one_line_error("is not a pipeline", "model_index.json")
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}')
    run_command(script, "--model", tmp_path, *flags).assert_one_line_error("cannot be loaded as an SSDPipeline")
    run_command(script, *flags).assert_one_line_error("model")
    assert not (tmp_path / "g.png").exists()


def test_bad_sampling_settings(trained, tmp_path, run_command) -> None:
    model = ["--model", trained]
    run_command(SAMPLE, *model).assert_one_line_error("Nothing to write", "--grid FILE")
    (tmp_path / "file").write_text("")
    run_command(SAMPLE, *model, "--grid", tmp_path / "g.xyz").assert_one_line_error("--grid", "must end in .png")
    run_command(SAMPLE, *model, "--animation", tmp_path / "g.png").assert_one_line_error("must end in .gif")
    run_command(SAMPLE, *model, "--out", tmp_path / "file").assert_one_line_error("file is a file")
    grid = ["--grid", tmp_path / "g.png"]
    run_command(SAMPLE, *model, *grid, "--device", "nonsense").assert_one_line_error("--device nonsense cannot be used")
    run_command(SAMPLE, *model, *grid, "--num", "0").assert_one_line_error("--num must be at least 1")
    run_command(SAMPLE, *model, *grid, "--eta", "2").assert_one_line_error("--eta must be in [0, 1]")
    run_command(SAMPLE, *model, *grid, "--steps", "1").assert_one_line_error("--steps", "2..1000")
    run_command(EVAL, *model, "--ref", "digits", "--num", "1").assert_one_line_error("--num must be at least 2")
    run_command(EVAL, *model, "--ref", "nothing").assert_one_line_error("'nothing'")
    assert not (tmp_path / "g.png").exists()


@pytest.mark.parametrize("script", [TRAIN, SAMPLE, EVAL])
def test_help_has_an_example(script: str, run_command) -> None:
    done = run_command(script, "--help")
    assert done.code == 0
    assert f"{script} --" in done.out


@pytest.mark.slow
def test_training_brings_the_distance_down_fivefold(tmp_path, run_command) -> None:
    """A short training on digits against the same network untrained."""
    config = ["--config", ROOT / "configs" / "digits.yaml", "--sample_every", "0"]
    distances = {}
    for name, steps, rate in (("untrained", "1", "1e-12"), ("trained", "300", "1e-3")):
        out = tmp_path / name
        done = run_command(TRAIN, *config, "--out", out, "--max_steps", steps, "--learning_rate", rate)
        assert done.code == 0, done.err
        assert run_command(EVAL, "--model", out, "--ref", "digits", "--num", "256", "--steps", "50").code == 0
        distances[name] = json.loads((out / "metrics.json").read_text())["metrics"]["frechet_distance_pixels"]
    assert distances["trained"] < distances["untrained"] / 5, distances


FAMILY = {
    "ddpm": ["--levels", "1"],
    "blurring diffusion": ["--levels", "1", "--blur_sigma_max", "3"],
    "ssd with blur": ["--levels", "2", "--blur_sigma_max", "2"],
    "ssd, dct": ["--levels", "2", "--downsample_kernel", "dct"],
    "ssd, bicubic": ["--levels", "2", "--downsample_kernel", "bicubic"],
    "ssd, lanczos3": ["--levels", "2", "--downsample_kernel", "lanczos3"],
    "ssd, full exit": ["--levels", "2", "--decoder_exit", "full"],
    "ssd, patches": ["--levels", "2", "--patch_size", "2"],
    "ssd, averages": ["--levels", "2", "--downsample_type", "average"],
}


@pytest.mark.parametrize("member", FAMILY)
def test_every_member_of_the_family_trains_and_samples(member: str, tmp_path, run_command) -> None:
    out = tmp_path / "x"
    done = run_command(TRAIN, *TINY, "--data", "digits", "--max_steps", "2", "--out", out, *FAMILY[member])
    assert done.code == 0, done.err
    for eta in ("0", "1"):
        grid = tmp_path / f"{eta}.png"
        done = run_command(SAMPLE, "--model", out, "--num", "2", "--steps", "4", "--eta", eta, "--grid", grid)
        assert done.code == 0, done.err
        assert Image.open(grid).size == (2 * 66 + 2, 68)
