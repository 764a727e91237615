"""The command that grows, redraws and fills in picture files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssd import BlurringScheduler, SSDPipeline, SSDSuperResolutionPipeline
from ssd.publishing.saving import load_pipeline, save_pipeline
from ssd.seeding import torch_generator

from ..evaluation.conftest import save_grey_model, save_model

EDIT, SAMPLE = "sample/edit_ssd.py", "sample/sample_ssd.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Two pictures of 16 x 16 and one of 40 x 20 that lies on its side, one file that is none."""
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (16, 16, 3)), ("more/b.png", (16, 16, 3)), ("c.png", (20, 40, 3))):
        image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        exif = image.getexif()
        exif[274] = 6 if name == "c.png" else 1
        image.save(folder / name, exif=exif)
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture
def mask(tmp_path) -> Path:
    white = np.zeros((32, 32), dtype=np.uint8)
    white[16:] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def flags(model: Path, *more) -> list:
    return ["--model", model, "--steps", "6", "--device", "cpu", *more]


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


TASKS = {"grow": [], "redraw": ["--level", "1"], "strength": ["--strength", "0.5"]}


@pytest.mark.parametrize("task", TASKS)
def test_results_of_every_picture(task: str, model, pictures, tmp_path, run_command) -> None:
    word = "redraw" if task == "strength" else task
    settings = [word, *flags(model, "--image", pictures, "--num", "2", *TASKS[task])]
    out, grid, animation = tmp_path / "out", tmp_path / "g.png", tmp_path / "a.gif"
    done = run_command(EDIT, *settings, "--out", out, "--grid", grid, "--animation", animation)
    assert done.code == 0, done.err
    assert f"wrote 6 images to {out}" in done.out
    notes = [line for line in done.err.splitlines() if line.startswith("note: ")]
    assert "note: 1 of 3 pictures read was turned by its EXIF tag." in notes
    assert "note: 1 file that is not a picture was skipped: 1 .txt." in notes
    assert any("pictures resized to" in note for note in notes)
    assert ("note: The pictures enter at level 1, 8 x 8." in notes) == (task == "grow")
    assert list(results(out)) == [f"{i:06d}.png" for i in range(6)]
    assert len(set(results(out).values())) == 6
    assert all(Image.open(out / name).size == (16, 16) for name in results(out))
    assert json.loads((out / "pictures.json").read_text()) == {
        "results_each": 2,
        "pictures": ["a.png", "c.png", "more/b.png"],
    }
    assert Image.open(grid).size == (3 * 66 + 2, 3 * 66 + 2)
    assert Image.open(animation).n_frames >= 2

    before = results(out)
    (out / "000003.png").unlink()
    done = run_command(EDIT, *settings, "--out", out, "--grid", tmp_path / "again.png", "--batch_size", "3")
    assert done.code == 0, done.err
    assert "5 of them were there" in done.out
    assert results(out) == before
    assert (tmp_path / "again.png").read_bytes() == grid.read_bytes()
    for other in (["--seed", "1"], ["--num", "1"], ["--image", pictures / "a.png"]):
        done = run_command(EDIT, *settings, "--out", out, *other)
        assert done.code == 2
        assert "holds images of another run" in done.err.splitlines()[-1]  # after the notes


def test_the_command_is_the_pipeline(model, tmp_path, run_command) -> None:
    """Result n is what the pipeline draws with the generator of (seed, n)."""
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(small).save(tmp_path / "small.png")
    out = tmp_path / "out"
    done = run_command(EDIT, "grow", *flags(model, "--image", tmp_path / "small.png", "--num", "3", "--out", out))
    assert done.code == 0, done.err
    pipe = SSDSuperResolutionPipeline.from_pipe(load_pipeline(str(model), "cpu"))
    generators = [torch_generator(0, "image", i) for i in range(3)]
    images = pipe(Image.fromarray(small), batch_size=3, num_inference_steps=6, generator=generators).images
    for i, image in enumerate(images):
        np.testing.assert_allclose(np.asarray(Image.open(out / f"{i:06d}.png"), dtype=int), np.asarray(image), atol=1)


def test_what_is_black_in_the_mask_stays(model, pictures, mask, tmp_path, run_command) -> None:
    out = tmp_path / "out"
    more = ["--image", pictures / "a.png", "--mask", mask, "--num", "2", "--resampling_steps", "2"]
    done = run_command(EDIT, "inpaint", *flags(model, *more, "--out", out, "--grid", tmp_path / "g.png"))
    assert done.code == 0, done.err
    original = np.asarray(Image.open(pictures / "a.png"))
    for name in results(out):
        found = np.asarray(Image.open(out / name))
        np.testing.assert_array_equal(found[:8], original[:8])
        assert (found[8:] != original[8:]).any()
    grid = np.asarray(Image.open(tmp_path / "g.png"))
    assert set(np.unique(grid[2 + 32 : 66, 2:66])) == {128}  # what is drawn anew is grey beside it


def test_masks_of_the_same_names(model, pictures, mask, tmp_path, run_command) -> None:
    masks, out = tmp_path / "masks", tmp_path / "out"
    (masks / "more").mkdir(parents=True)
    for name, white in (("a.gif", (0, 0, 8, 16)), ("more/b.png", (0, 0, 16, 8))):
        image = Image.new("L", (16, 16))
        image.paste(255, white)
        image.save(masks / name)
    (pictures / "c.png").unlink()
    done = run_command(EDIT, "inpaint", *flags(model, "--image", pictures, "--mask", masks, "--out", out))
    assert done.code == 0, done.err
    a, b = (np.asarray(Image.open(out / f"00000{i}.png")) for i in range(2))
    np.testing.assert_array_equal(a[:, 8:], np.asarray(Image.open(pictures / "a.png"))[:, 8:])
    np.testing.assert_array_equal(b[8:], np.asarray(Image.open(pictures / "more" / "b.png"))[8:])
    (masks / "a.gif").unlink()
    (masks / "z.png").write_bytes((masks / "more" / "b.png").read_bytes())
    done = run_command(EDIT, "inpaint", *flags(model, "--image", pictures, "--mask", masks, "--out", out))
    done.assert_one_line_error("has no mask for a.png")


def test_grey_pictures_that_are_not_square(tmp_path, run_command) -> None:
    """The model's images are 16 x 8; a colour picture becomes grey, and that is said."""
    model, out = save_grey_model(tmp_path / "m"), tmp_path / "out"
    Image.new("RGBA", (9, 17), (200, 40, 40, 128)).save(tmp_path / "p.png")
    for task in ("grow", "redraw"):
        done = run_command(EDIT, task, *flags(model, "--image", tmp_path / "p.png", "--out", out / task))
        assert done.code == 0, done.err
        assert "1 of 1 pictures read was composited over white." in done.err
        assert "1 of 1 pictures read was converted from colour to grey." in done.err
        image = Image.open(out / task / "000000.png")
        assert (image.mode, image.size) == ("L", (8, 16))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["grow", "--level", "5"], ["grow does not fit this model: level must be one of 1 (8 x 8), got 5"]),
        (["grow", "--factor", "3"], ["by a factor of 2, got 3"]),
        (["redraw", "--level", "1", "--strength", "0.5"], ["--level or --strength, not both"]),
        (["redraw", "--strength", "1.5"], ["strength must be in [0, 1], got 1.5"]),
        (["redraw", "--strength", "0.1", "--consistency", "true"], ["keeps the whole picture at level 0"]),
        (["inpaint"], ["mask"]),
        (["inpaint", "--mask", "none.png"], ["--mask none.png does not exist"]),
        (["grow", "--mask", "x.png"], ["mask"]),
        (["grow", "--num", "0"], ["--num must be at least 1"]),
        (["grow", "--class", "cat"], ["--class and --guidance_scale do not fit", "no names of classes, got 'cat'"]),
        (["grow", "--guidance_scale", "2"], ["needs a class-conditional model"]),
        (["grow", "--guidance_start", "0.8", "--guidance_end", "0.2"], ["0 <= start <= end <= 1"]),
        (["draw"], ["unrecognized arguments: draw. Did you mean 'redraw'?"]),
        ([], ["grow, redraw, inpaint"]),
    ],
)
def test_mistakes_are_one_line(words: list, parts: list, model, pictures, tmp_path, run_command) -> None:
    more = flags(model, "--image", pictures / "a.png", "--out", tmp_path / "out") if words[:1] != ["draw"] else []
    run_command(EDIT, *words, *(more if words else [])).assert_one_line_error(*parts)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_pictures_are_one_line(model, mask, pictures, tmp_path, run_command) -> None:
    (tmp_path / "empty").mkdir()
    for image, part in (
        (tmp_path / "none.png", "does not exist: give a picture, or a folder"),
        (pictures / "notes.txt", "notes.txt is not an image: replace or remove it."),
        (tmp_path / "empty", "is empty"),
    ):
        done = run_command(EDIT, "grow", *flags(model, "--image", image, "--grid", tmp_path / "g.png"))
        done.assert_one_line_error(part)
    more = ["--image", pictures / "c.png", "--mask", mask, "--grid", tmp_path / "g.png"]
    run_command(EDIT, "inpaint", *flags(model, *more)).assert_one_line_error("is 32 x 32 and the picture 20 x 40")


def test_a_process_without_known_states_is_refused(pictures, mask, tmp_path, run_command) -> None:
    pipe = SSDPipeline.from_pretrained(save_model(tmp_path / "m"))
    save_pipeline(SSDPipeline(pipe.unet, BlurringScheduler(sample_size=16)), tmp_path / "b")
    for words in (["grow"], ["redraw"], ["inpaint", "--mask", mask]):
        settings = flags(tmp_path / "b", "--image", pictures / "a.png", "--grid", tmp_path / "g.png")
        done = run_command(EDIT, *words, *settings)
        done.assert_one_line_error(f"{words[0]} does not fit this model", "got BlurringScheduler")


def test_classes_by_name(pictures, tmp_path, run_command) -> None:
    names = {0: "cat", 1: "dog", 2: "owl"}
    model = save_model(tmp_path / "m", num_class_embeds=4, id2label=names)
    guided = ["--guidance_scale", "2", "--guidance_start", "0.2", "--guidance_end", "0.9"]

    def drawn(script: str, out: str, *more) -> dict[str, bytes]:
        words = ["redraw", "--image", pictures / "a.png"] if script == EDIT else []
        done = run_command(script, *words, *flags(model, "--num", "4", "--out", tmp_path / out, *more))
        assert done.code == 0, done.err
        return results(tmp_path / out)

    for script in (EDIT, SAMPLE):
        here = script.replace("/", "_")
        named = drawn(script, f"{here}_names", "--class", "[owl, cat]", *guided)
        assert json.loads((tmp_path / f"{here}_names" / "labels.json").read_text())["labels"] == [2, 0, 2, 0]
        assert drawn(script, f"{here}_numbers", "--class", "[2, 0]", *guided) == named
        assert drawn(script, f"{here}_one", "--class=owl")["000001.png"] != named["000001.png"]
        settings = json.loads((tmp_path / f"{here}_names" / "samples.json").read_text())
        assert settings["class"] == ["owl", "cat"]
        assert settings["guidance_end"] == 0.9
    plain = flags(model, "--num", "4", "--out", tmp_path / f"{here}_one")
    run_command(SAMPLE, *plain, "--class", "dog").assert_one_line_error("class is 'owl' there and 'dog' here")
    run_command(SAMPLE, *plain, "--class", "owll").assert_one_line_error("no class 'owll'", "the nearest are 'owl'")
    run_command(SAMPLE, *plain, "--class", "7").assert_one_line_error("1 integers in 0..3", "got [7]")
    run_command(SAMPLE, *plain, "--class", "[]").assert_one_line_error("no class in the list")


def test_a_grown_picture_keeps_the_small_one_in_8_bits(model, tmp_path, run_command) -> None:
    """As far as 8 bits and clipping at black and white can: a grey picture needs neither."""
    Image.new("RGB", (8, 8), (128, 90, 60)).save(tmp_path / "p.png")
    done = run_command(EDIT, "grow", *flags(model, "--image", tmp_path / "p.png", "--out", tmp_path / "out"))
    assert done.code == 0, done.err
    process = load_pipeline(str(model), "cpu").scheduler.process
    pixels = torch.from_numpy(np.array(Image.open(tmp_path / "out" / "000000.png"))).permute(2, 0, 1)[None].float()
    again = process.degrade(pixels, process.resolution.level_starts[1])[0].mean(dim=(1, 2))
    assert (again - torch.tensor([128.0, 90.0, 60.0])).abs().max() < 8  # an untrained network is clipped at times
