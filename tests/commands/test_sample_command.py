"""The sampling command: what may be in its folder, stopped runs, broken models, full disks, one writer."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flexi_unet import FlexiUNet2DModel
from ssd import BlurringScheduler, SSDPipeline, SSDScheduler
from ssd.commands.lock import hold_folder
from ssd.publishing.saving import save_pipeline

from ..conftest import TINY
from ..evaluation.conftest import save_grey_model, save_model

SAMPLE, EVAL = "sample/sample_ssd.py", "sample/eval_fid.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture
def flags(model, tmp_path) -> list:
    return ["--model", model, "--steps", "3", "--device", "cpu", "--out", tmp_path / "out"]


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def test_an_eta_that_the_model_does_not_have_is_one_line(tmp_path, run_command) -> None:
    unet = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 32), layers_per_block=1)
    save_pipeline(SSDPipeline(unet, BlurringScheduler(sample_size=16)), tmp_path / "m")
    for command, more in ((SAMPLE, []), (EVAL, ["--ref", "digits", "--features", "pixels"])):
        flags = ["--model", tmp_path / "m", "--num", "5", "--steps", "3", "--eta", "0", "--out", tmp_path / "out"]
        run_command(command, *flags, *more).assert_one_line_error("--eta 0 does not fit", "eta must be 1")
        assert not list(tmp_path.glob("out/*"))


def test_the_settings_are_beside_the_images(flags, tmp_path, run_command) -> None:
    assert run_command(SAMPLE, *flags, "--num", "3", "--seed", "5", "--eta", "0.5").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *(f"{i:06d}.png" for i in range(3)),
        "samples.json",
    ]
    settings = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert len(settings.pop("model")) == 64
    assert settings == {
        "sampler": "second_order",
        "steps": 3,
        "eta": 0.5,
        "seed": 5,
        "dtype": "float32",
        "residual_covariance": "none",
        "compile": False,
        "num": 3,
    }


def test_samplers_by_name(flags, tmp_path, run_command) -> None:
    """The default and the paper's draw other images, and a folder of one is not filled up with the other's."""
    assert run_command(SAMPLE, *flags, "--num", "3").code == 0
    done = run_command(SAMPLE, *flags, "--num", "3", "--sampler", "paper")
    done.assert_one_line_error("sampler is 'second_order' there and 'paper' here")
    second = pictures(tmp_path / "out")
    assert run_command(SAMPLE, *flags, "--num", "3", "--sampler", "paper", "--overwrite").code == 0
    assert pictures(tmp_path / "out") != second
    run_command(SAMPLE, *flags, "--sampler", "best").assert_one_line_error("sampler", "second_order", "paper")


def test_a_folder_of_an_earlier_version_is_not_continued(flags, tmp_path, run_command) -> None:
    assert run_command(SAMPLE, *flags, "--num", "3").code == 0
    path = tmp_path / "out" / "samples.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in settings.items() if key != "sampler"}))
    done = run_command(SAMPLE, *flags, "--num", "3")
    done.assert_one_line_error("holds images of another run", "sampler is None there and 'second_order' here")


def test_the_same_settings_repeat_and_continue(flags, tmp_path, run_command) -> None:
    out = tmp_path / "out"
    assert run_command(SAMPLE, *flags, "--num", "5", "--grid", tmp_path / "whole.png").code == 0
    whole = pictures(out)
    for name in ("000001.png", "000004.png"):  # as after a stop
        (out / name).unlink()
    (out / ".part-1-000004.png").write_bytes(b"half a picture")
    (out / "000002.png").touch()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("0*.png")}
    animation = ["--animation", tmp_path / "a.gif"]
    done = run_command(SAMPLE, *flags, "--num", "5", "--grid", tmp_path / "again.png", *animation)
    assert done.code == 0, done.err
    assert f"wrote 5 images to {out}; 3 of them were there" in done.out
    assert pictures(out) == whole
    assert all((out / name).stat().st_mtime_ns == then for name, then in before.items())
    assert not list(out.glob(".part-*"))
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert Image.open(tmp_path / "a.gif").n_frames >= 2
    assert run_command(SAMPLE, *flags, "--num", "2").code == 0  # fewer
    assert pictures(out) == whole
    assert run_command(SAMPLE, *flags, "--num", "7").code == 0  # more
    assert len(pictures(out)) == json.loads((out / "samples.json").read_text())["num"] == 7


def test_images_of_other_settings_are_not_mixed(flags, model, tmp_path, run_command) -> None:
    out = tmp_path / "out"
    assert run_command(SAMPLE, *flags, "--num", "4").code == 0
    (out / "notes.txt").write_text("mine")
    first = pictures(out)
    other = save_model(tmp_path / "other", dropout=0.1)
    for more, part in (
        (["--seed", "1"], "seed is 0 there and 1 here"),
        (["--steps", "4"], "steps is 3 there and 4 here"),
        (["--eta", "0"], "eta is 1.0 there and 0.0 here"),
        (["--dtype", "bfloat16"], "dtype is 'float32' there and 'bfloat16' here"),
        (["--model", other], "model is "),
    ):
        run_command(SAMPLE, *flags, "--num", "2", *more).assert_one_line_error("another run", part, "--overwrite")
    assert pictures(out) == first
    assert run_command(SAMPLE, *flags, "--num", "2", "--seed", "1", "--overwrite").code == 0
    assert list(pictures(out)) == ["000000.png", "000001.png"]  # the other two would be compared with them
    assert pictures(out)["000000.png"] != first["000000.png"]
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("name", ["holiday.jpg", "000007.png"])
def test_images_of_unknown_origin(name: str, overwrite: list, flags, tmp_path, run_command) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for file in {name, "000009.png"}:
        Image.new("RGB", (16, 16)).save(out / file)
    done = run_command(SAMPLE, *flags, "--num", "2", *overwrite)
    if name == "holiday.jpg" or not overwrite:
        done.assert_one_line_error("holds images that no samples.json tells the origin of, such as ")
        assert {path.name for path in out.iterdir()} == {name, "000009.png"}
    else:
        assert done.code == 0, done.err
        assert list(pictures(out)) == ["000000.png", "000001.png"]


def test_the_evaluation_refuses_them_too(model, tmp_path, run_command) -> None:
    generated = tmp_path / "e" / "generated"
    generated.mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(generated / "000000.png")
    flags = ["--model", model, "--ref", "digits", "--num", "4", "--steps", "3", "--features", "pixels"]
    flags += ["--metrics", "fid", "--out", tmp_path / "e"]
    run_command(EVAL, *flags).assert_one_line_error("such as 000000.png", "--overwrite")
    assert run_command(EVAL, *flags, "--overwrite").code == 0


@pytest.mark.parametrize("content", ["", "[]", "3", "{", "[[]]", "\ufeff"])
def test_damaged_settings(content: str, flags, tmp_path, run_command) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "samples.json").write_text(content)
    run_command(SAMPLE, *flags, "--num", "2").assert_one_line_error("samples.json")


def test_only_named_classes_are_drawn(tmp_path, run_command) -> None:
    names = {0: "cat", 1: "dog", 2: "owl"}
    model = save_model(tmp_path / "m", num_class_embeds=4, id2label=names)
    assert FlexiUNet2DModel.from_pretrained(model / "unet").class_names == ["cat", "dog", "owl"]
    for script, more in ((SAMPLE, []), (EVAL, ["--ref", "digits", "--features", "pixels", "--metrics", "fid"])):
        out = tmp_path / script.replace("/", "_")
        done = run_command(script, "--model", model, "--num", "7", "--steps", "3", "--out", out, *more)
        assert done.code == 0, done.err
        assert json.loads((out / "labels.json").read_text())["labels"] == [0, 1, 2, 0, 1, 2, 0]


@pytest.fixture(scope="module")
def broken_model(tmp_path_factory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("broken") / "m")
    pipeline = SSDPipeline.from_pretrained(folder)
    with torch.no_grad():
        pipeline.unet.conv_out.bias[1] = float("inf")  # which clipping would make white
    save_pipeline(pipeline, folder)
    return folder


@pytest.mark.parametrize("script", [SAMPLE, EVAL])
@pytest.mark.parametrize("where", ["out", "elsewhere"])
def test_a_broken_model_stops_with_the_first_image(script, where, broken_model, tmp_path, run_command) -> None:
    more = ["--out", tmp_path / "x"] if where == "out" else ["--grid", tmp_path / "x" / "g.png"]
    if script == EVAL:
        more = ["--ref", "digits", "--features", "pixels", "--out", tmp_path / ("x" if where == "out" else "x.json")]
    done = run_command(script, "--model", broken_model, "--num", "5", "--steps", "3", *more)
    assert done.code == 1
    [line] = [line for line in done.err.splitlines() if "error" in line or "Traceback" in line]
    cause = "the network gave NaN or infinity at timestep 999, so its weights are broken."
    assert line.endswith(f"error: Image 0 cannot be drawn: {cause}")  # after the remains of progress bars
    assert not list(tmp_path.rglob("*.png"))
    assert not list(tmp_path.rglob("report.json"))


@pytest.mark.parametrize("script", [SAMPLE, EVAL])
def test_a_damaged_pipeline(script, tmp_path, run_command) -> None:
    model = save_model(tmp_path / "m")
    (model / "unet" / "config.json").write_text("{}")
    more = ["--ref", "digits"] if script == EVAL else ["--grid", tmp_path / "g.png"]
    done = run_command(script, "--model", model, *more)
    done.assert_one_line_error("cannot be loaded as an SSDPipeline", "unet/config.json names the class None")


@pytest.mark.parametrize("script", [SAMPLE, EVAL])
def test_one_writer_at_a_time(script, model, tmp_path, run_command) -> None:
    more = ["--ref", "digits", "--features", "pixels", "--metrics", "fid"] if script == EVAL else []
    flags = ["--model", model, "--num", "4", "--steps", "3", "--out", tmp_path / "x", *more]
    with hold_folder(tmp_path / "x"):
        run_command(script, *flags).assert_one_line_error(f"--out {tmp_path / 'x'} is in use by process ")
    done = run_command(script, *flags)
    assert done.code == 0, done.err
    assert not (tmp_path / "x" / ".lock").exists()


def test_grey_images_that_are_not_square(tmp_path, run_command) -> None:
    out, model = tmp_path / "out", save_grey_model(tmp_path / "m")
    flags = ["--model", model, "--num", "5", "--steps", "6", "--device", "cpu", "--out", out]
    done = run_command(SAMPLE, *flags, "--grid", tmp_path / "g.png", "--animation", tmp_path / "a.gif")
    assert done.code == 0, done.err
    images = [Image.open(out / f"{i:06d}.png") for i in range(5)]
    assert {(image.mode, image.size) for image in images} == {("L", (8, 16))}
    assert len({np.asarray(image).tobytes() for image in images}) == 5
    grid = Image.open(tmp_path / "g.png")
    assert (grid.mode, grid.size) == ("L", (3 * 34 + 2, 2 * 66 + 2))  # enlarged fourfold, two pixels between
    assert np.array_equal(np.asarray(grid)[2:66:4, 36:68:4], np.asarray(images[1]))
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames >= 2
        assert animation.size == (2 * grid.size[0] + 12, grid.size[1] + 22)
        animation.seek(animation.n_frames - 1)
        frame = np.asarray(animation.convert("RGB"), dtype=int)[22 + 2 : 22 + 66 : 4, 36:68:4]
    assert np.abs(frame - np.asarray(images[1], dtype=int)[..., None]).max() <= 4  # a GIF has 256 colours

    whole = pictures(out)
    (out / "000002.png").unlink()
    done = run_command(SAMPLE, *flags, "--grid", tmp_path / "again.png")
    assert done.code == 0, done.err
    assert pictures(out) == whole
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "g.png").read_bytes()


@pytest.mark.parametrize("script", [SAMPLE, EVAL])
def test_images_that_are_not_pictures(script: str, tmp_path, run_command) -> None:
    model = save_grey_model(tmp_path / "m", channels=4)
    more = ["--ref", "digits"] if script == EVAL else ["--grid", tmp_path / "g.png"]
    done = run_command(script, "--model", model, "--steps", "3", "--device", "cpu", *more)
    done.assert_one_line_error("images of 4 channels, but pictures have 3 (RGB) or 1 (grey)", 'output_type="latent"')


LOST = {"000003.png": SAMPLE, "g.png": SAMPLE, "a.gif": SAMPLE, "report.json": EVAL, "report.md": EVAL,
        "samples.png": EVAL, "samples.json": EVAL, "000002.png": EVAL}  # fmt: skip


@pytest.mark.parametrize("lost", LOST)
def test_a_full_disk(lost: str, model, tmp_path, run_command, monkeypatch) -> None:
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == lost:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))
        replace(source, target)

    out = tmp_path / "x"
    more = ["--grid", tmp_path / "g.png", "--animation", tmp_path / "a.gif"]
    if LOST[lost] == EVAL:
        more = ["--ref", "digits", "--features", "pixels", "--metrics", "fid"]
    flags = ["--model", model, "--num", "5", "--steps", "3", "--device", "cpu", "--out", out, *more]
    monkeypatch.setattr(os, "replace", full)
    done = run_command(LOST[lost], *flags)
    assert done.code == 1, done.err
    [line] = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert "The disk is full: " in line
    assert f"{lost} was not written" in line
    assert not list(tmp_path.rglob(".part-*"))
    monkeypatch.undo()
    assert run_command(LOST[lost], *flags).code == 0
    assert all(np.array(Image.open(path)).shape == (16, 16, 3) for path in out.rglob("0*.png"))


def test_an_image_for_every_seed(flags, tmp_path, run_command) -> None:
    """Each is image 0 of its seed."""
    for seed in (3, 5):
        more = ["--num", "1", "--seed", seed, "--out", tmp_path / str(seed)]
        assert run_command(SAMPLE, *flags, *more).code == 0
    done = run_command(SAMPLE, *flags, "--seeds", "[5, 4, 3]")
    assert done.code == 0, done.err
    drawn = pictures(tmp_path / "out")
    assert list(drawn) == [f"{i:06d}.png" for i in range(3)]
    singles = {seed: np.array(Image.open(tmp_path / str(seed) / "000000.png")).astype(int) for seed in (3, 5)}
    found = [np.array(Image.open(tmp_path / "out" / name)).astype(int) for name in drawn]
    assert np.abs(found[0] - singles[5]).max() <= 1  # another batch may round differently
    assert np.abs(found[2] - singles[3]).max() <= 1
    assert np.abs(found[1] - singles[3]).max() > 1
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["seeds"] == [5, 4, 3]
    done = run_command(SAMPLE, *flags, "--seeds", "3:6")
    done.assert_one_line_error("seeds is [5, 4, 3] there and [3, 4, 5] here")
    for words, part in (
        (["--seeds", "3-6"], "--seeds must be a list such as '[1, 2, 3]' or a range such as 0:16, got '3-6'"),
        (["--seeds", "6:3"], "at least one, got []"),
        (["--seeds", "[-1]"], "of at least 0"),
        (["--seeds", "0:3", "--num", "4"], "leave --seed and --num out"),
    ):
        run_command(SAMPLE, *flags, *words).assert_one_line_error(part)


@pytest.mark.slow
def test_checkpoints_are_models_and_guides(tmp_path, run_command) -> None:
    """The last checkpoint's averaged weights are the pipeline's; an earlier one draws others, and guides."""
    run = tmp_path / "run"
    train = ["--data", "digits", "--max_steps", "4", "--save_every", "2", "--out", run]
    assert run_command("train/train_ssd.py", *TINY, *train).code == 0
    early, last = (run / "checkpoints" / f"step_{step:08d}" for step in (2, 4))
    common = ["--num", "3", "--steps", "4", "--device", "cpu"]
    for model, name in ((run, "run"), (last, "last"), (early, "early")):
        done = run_command(SAMPLE, "--model", model, *common, "--out", tmp_path / name)
        assert done.code == 0, done.err
    assert pictures(tmp_path / "run") == pictures(tmp_path / "last")
    assert pictures(tmp_path / "run") != pictures(tmp_path / "early")
    settings = [json.loads((tmp_path / name / "samples.json").read_text()) for name in ("run", "last", "early")]
    assert len({each["model"] for each in settings}) == 3
    guided = ["--model", run, "--guide", early, "--guidance_scale", "2", *common, "--out", tmp_path / "guided"]
    done = run_command(SAMPLE, *guided)
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "guided" / "samples.json").read_text())["guide"] == settings[2]["model"]
    assert pictures(tmp_path / "guided") != pictures(tmp_path / "run")
    again = [last if word == early else word for word in guided]
    run_command(SAMPLE, *again).assert_one_line_error("guide is ")
    weights = early / "ema_0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + bytes(8))
    for words in (["--model", early], ["--model", run, "--guidance_scale", "2", "--guide", early]):
        done = run_command(SAMPLE, *words, *common, "--grid", tmp_path / "g.png")
        done.assert_one_line_error(words[-2], "ema_0.safetensors is damaged: its content is not what was written")
    (run / "model_index.json").unlink()
    done = run_command(SAMPLE, "--model", last, *common, "--grid", tmp_path / "g.png")
    done.assert_one_line_error("is a checkpoint, and the folder of its run has no pipeline")


def test_guides_that_do_not_fit_are_one_line(model, flags, tmp_path, run_command) -> None:
    done = run_command(SAMPLE, *flags, "--num", "3", "--guide", model)
    done.assert_one_line_error("--guide has no effect with a guidance_scale of 1")
    guided = [*flags, "--num", "3", "--guidance_scale", "1.5", "--guide"]
    run_command(SAMPLE, *guided, tmp_path / "none").assert_one_line_error("--guide", "is not a pipeline")
    other = save_model(tmp_path / "other", num_class_embeds=4)
    run_command(SAMPLE, *guided, other).assert_one_line_error("its num_class_embeds is 4 and the network's None")
    pipeline = SSDPipeline.from_pretrained(model)
    pipeline.scheduler = SSDScheduler.from_config(pipeline.scheduler.config, resolution_gamma=2.0)
    save_pipeline(pipeline, tmp_path / "process")
    done = run_command(SAMPLE, *guided, tmp_path / "process")
    done.assert_one_line_error("its process has resolution_gamma=2.0, and this one 0.5")
    assert not (tmp_path / "out").exists()
