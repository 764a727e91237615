"""Evaluation of images that are not square, and of grey ones: features, scales, levels, every command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssd import SSDScheduler
from ssd.commands.errors import UsageError
from ssd.data import open_dataset
from ssd.evaluation.distances.patches import image_patches, laplacian_pyramid
from ssd.evaluation.distances.sliced_wasserstein import sliced_wasserstein
from ssd.evaluation.features.digit_classifier import digit_recognition
from ssd.evaluation.features.extractors import load_extractor
from ssd.evaluation.features.resizing import resize_picture
from ssd.evaluation.images import list_pictures
from ssd.evaluation.levels import LevelReduction, level_ends
from ssd.evaluation.statistics import check_compatible, load_statistics

from .conftest import EVAL, read_report
from .test_eval_command import save_network

SMALL = ["--features", "pixels", "--device", "cpu"]


@pytest.fixture(scope="module")
def grey_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 20, 12, 1), dtype=np.uint8)


@pytest.fixture
def grey_data(grey_images, tmp_path) -> str:
    np.savez(tmp_path / "grey.npz", images=grey_images)
    return f"npz:{tmp_path}/grey.npz"


@pytest.fixture
def grey_folder(tmp_path) -> Path:
    """Twelve grey PNG files of 16 x 8 (height x width)."""
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i:06d}.png")
    return tmp_path / "pictures"


def test_a_model_against_data_and_against_their_statistics(grey_model, grey_data, tmp_path, run_command) -> None:
    """Everything that a report has, in files and streamed, with all metrics and every command."""
    model = ["--model", grey_model, "--num", "40", "--steps", "3", *SMALL]
    metrics = ["--metrics", "fid,kid,swd,pr,levels"]
    done = run_command(EVAL, *model, *metrics, "--ref", grey_data, "--out", tmp_path / "files")
    assert done.code == 0, done.err
    report = read_report(tmp_path / "files")
    assert report["protocol"]["reference"]["size"] == [16, 8]
    assert report["protocol"]["reference"]["channels"] == 1
    names = {"frechet_distance_pixels", "kid_pixels", "precision_pixels", "swd", "swd_8", "swd_4"}
    assert names | {"frechet_distance_pixels_at_8x4"} <= set(report["metrics"])
    assert "swd_16" not in report["metrics"]  # bands have the name of their shorter side
    assert any("40 images for 64 features" in warning for warning in report["warnings"])
    for folder, size in (("generated", (8, 16)), ("generated_8x4", (4, 8))):
        with Image.open(tmp_path / "files" / folder / "000039.png") as image:
            assert (image.mode, image.size) == ("L", size)
    for name, rows in (("samples", 6), ("neighbours", 2)):
        with Image.open(tmp_path / "files" / f"{name}.png") as grid:
            assert (grid.mode, grid.size[1]) == ("L", rows * 66 + 2)

    done = run_command(EVAL, *model, *metrics, "--ref", grey_data, "--stream", "--out", tmp_path / "streamed")
    assert done.code == 0, done.err
    assert read_report(tmp_path / "streamed")["metrics"] == report["metrics"]

    statistics = tmp_path / "s.npz"
    flags = ["--ref", grey_data, "--res", "[16, 8]", "--channels", "1", "--out", statistics]
    done = run_command(EVAL, "stats", *flags, *SMALL)
    assert done.code == 0, done.err
    assert "50 images, 64 features" in done.out
    provenance = load_statistics(statistics).provenance
    assert (provenance["size"], provenance["channels"]) == ([16, 8], 1)
    generated = tmp_path / "files" / "generated"
    for of in (model, ["--images", generated, *SMALL]):
        done = run_command(EVAL, *of, "--metrics", "fid,kid,swd,pr", "--ref", statistics, "--out", tmp_path / "a.json")
        assert done.code == 0, done.err
        found = json.loads((tmp_path / "a.json").read_text())["metrics"]
        assert found == {name: report["metrics"][name] for name in found}


def test_digits(grey_model, tmp_path, run_command) -> None:
    done = run_command(EVAL, "--model", grey_model, "--ref", "digits", "--num", "20", "--steps", "3", *SMALL,
                       "--metrics", "fid", "--out", tmp_path / "x")  # fmt: skip
    assert done.code == 0, done.err
    metrics = read_report(tmp_path / "x")["metrics"]
    assert 0.1 <= metrics["mean_top_probability"] <= 1
    assert "note:" not in done.err
    colour, grey = open_dataset("digits", 16), open_dataset("digits", (24, 16), channels=1)
    real = [torch.stack([digits[i]["image"] for i in range(1400, 1797)]) for digits in (colour, grey)]
    in_colour, in_grey = (digit_recognition([images]) for images in real)
    assert in_grey["mean_top_probability"] == pytest.approx(in_colour["mean_top_probability"], abs=0.02)
    assert in_grey["mean_top_probability"] > 0.88


def test_a_folder_is_grey_if_all_its_files_are(grey_folder, grey_data, tmp_path, run_command) -> None:
    pictures, size, _ = list_pictures(grey_folder)
    assert (size, pictures.channels, pictures[0].shape) == ((16, 8), 1, (16, 8, 1))
    in_colour, _, _ = list_pictures(grey_folder, in_colour=True)
    assert np.array_equal(in_colour[3], pictures[3].repeat(3, axis=2))
    array, _, _ = list_pictures(grey_data.removeprefix("npz:"), in_colour=True)
    assert (array.channels, array[0].shape) == (3, (20, 12, 3))
    flags = ["--images", grey_folder, "--ref", grey_data, "--metrics", "fid,swd,pr", *SMALL, "--out", tmp_path / "x"]
    done = run_command(EVAL, *flags)
    assert done.code == 0, done.err
    assert "note:" not in done.err  # nothing was converted
    Image.new("RGB", (8, 16)).save(grey_folder / "z.png")
    pictures, _, _ = list_pictures(grey_folder)
    assert (pictures.channels, pictures[0].shape) == (3, (16, 8, 3))


def test_colour_that_becomes_grey_is_counted_and_told(grey_folder, reference, tmp_path, run_command) -> None:
    note = "note: 50 of 50 pictures read were converted from colour to grey."
    flags = ["--ref", reference, "--metrics", "fid", *SMALL]
    done = run_command(EVAL, "--images", grey_folder, *flags, "--out", tmp_path / "x")
    assert done.code == 0, done.err
    assert done.err.count(note) == 1
    stats = ["stats", "--ref", reference, "--res", "16", *SMALL, "--out", tmp_path / "s.npz"]
    assert run_command(EVAL, *stats, "--channels", "1").err.count(note) == 1
    assert "note:" not in run_command(EVAL, *stats).err


def test_statistics_of_other_channels_or_sizes(grey_model, grey_folder, reference, tmp_path, run_command) -> None:
    made = {}
    for name, flags in {
        "colour": ["--res", "[16, 8]"],
        "grey": ["--res", "[16, 8]", "--channels", "1"],
        "wide": ["--res", "[8, 16]", "--channels", "1"],
    }.items():
        made[name] = tmp_path / f"{name}.npz"
        assert run_command(EVAL, "stats", "--ref", reference, *flags, *SMALL, "--out", made[name]).code == 0
    assert "channels" not in load_statistics(made["colour"]).provenance
    flags = ["--model", grey_model, "--num", "9", "--steps", "3", "--metrics", "fid", *SMALL, "--out", tmp_path / "x"]
    run_command(EVAL, *flags, "--ref", made["colour"]).assert_one_line_error("channels is 3 there and 1 here")
    run_command(EVAL, *flags, "--ref", made["wide"]).assert_one_line_error("size is [8, 16] there and [16, 8] here")
    # Grey files were read as colour before: they still are where the statistics are of colour.
    for images, ref in ((grey_folder, "colour"), (grey_folder, "grey")):
        done = run_command(
            EVAL, "--images", images, "--ref", made[ref], "--metrics", "fid,swd", *SMALL, "--out", tmp_path / ref
        )
        assert done.code == 0, done.err
        assert done.err.count(f"{192 if ref == 'colour' else 64} features") >= 1
    for file in sorted(grey_folder.iterdir()):
        Image.merge("RGB", [Image.open(file)] * 3).save(file)
    done = run_command(EVAL, "--images", grey_folder, "--ref", made["grey"], *SMALL, "--out", tmp_path / "y")
    done.assert_one_line_error("channels is 1 there and 3 here")
    check_compatible({"channels": 3}, {"preset": "adm"})  # made before there was a choice
    check_compatible({"channels": 1}, {})  # of unknown origin


BAD = {
    "zero": (["--res", "0"], ["must be at least 1, got 0"]),
    "three numbers": (["--res", "[8, 8, 3]"], ["two for [height, width]", "[8, 8, 3]"]),
    "channels": (["--res", "8", "--channels", "2"], ["must be 3 for colour (RGB) or 1 for grey, got 2"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_statistics(name: str, tmp_path, run_command) -> None:
    flags, parts = BAD[name]
    run_command(EVAL, "stats", "--ref", "digits", "--out", tmp_path / "x.npz", *flags).assert_one_line_error(*parts)


@pytest.mark.parametrize("resize", ["clean", "legacy_pytorch", "none"])
def test_networks_see_grey_as_colour(resize: str, inception_weights, tmp_path) -> None:
    """Whatever the resizing: the same features, to the bit, as of the same pictures stored in colour."""
    grey = np.random.default_rng(0).integers(0, 256, (2, 24, 16, 1), dtype=np.uint8)
    if resize == "none":
        extractor = load_extractor(f"module:{save_network(tmp_path / 'net.pt')}", resize=resize)
    else:
        extractor = load_extractor(resize, weights=str(inception_weights), sha256="none")
    found, expected = (
        extractor(torch.stack([resize_picture(picture, resize) for picture in pictures]))
        for pictures in (grey, grey.repeat(3, axis=3))
    )
    assert torch.equal(found, expected)
    assert (found[0] - found[1]).abs().max() > 1e-6


def test_pixel_features_of_grey_are_a_third_of_those_of_colour() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (2, 24, 16, 1), dtype=np.uint8)
    extractor = load_extractor("pixels")
    found, repeated = (
        extractor(torch.stack([resize_picture(picture, "none") for picture in pictures]))
        for pictures in (grey, grey.repeat(3, axis=3))
    )
    assert found.shape == (2, 64)
    assert torch.equal(repeated, found.repeat(1, 3))


def test_scales_have_the_name_of_the_shorter_side() -> None:
    for size in ((96, 64), (64, 96)):
        bands = laplacian_pyramid(torch.zeros(1, 1, *size))
        assert list(bands) == [64, 32, 16, 8, 4]
        assert [tuple(band.shape[-2:]) for band in bands.values()] == [(size[0] >> n, size[1] >> n) for n in range(5)]
    picture = np.random.default_rng(0).integers(0, 256, (96, 64, 1), dtype=np.uint8)
    patches = image_patches(picture, 0)
    assert {side: rows.shape for side, rows in patches.items()} == {
        **{side: (8, 49) for side in (64, 32, 16, 8)},
        4: (8, 6 * 4),
    }
    for side, rows in image_patches(picture.repeat(3, axis=2), 0).items():
        assert np.array_equal(rows.reshape(8, 3, -1)[:, 1], patches[side])  # the same places
        shifted = patches[side] + patches[side].std() / 10  # the sum of a direction is about N(0, 1)
        assert sliced_wasserstein(patches[side], shifted, channels=1) == pytest.approx(0.08, rel=0.2)


def test_levels_are_reduced_by_the_models_own_process() -> None:
    scheduler = SSDScheduler(sample_size=(16, 8), num_levels=3, blur_sigma_max=2.0)
    scheduler.set_timesteps(10)
    ends = level_ends(scheduler)
    assert list(ends) == [(8, 4), (4, 2)]
    images = torch.rand(2, 1, 16, 8) * 2 - 1
    for size, s in ends.items():
        reduced = LevelReduction(scheduler, s)(images)
        assert reduced.shape == (2, 1, *size)
        assert torch.equal(reduced, scheduler.process.degrade(images, s))


def test_a_reference_of_another_shape_is_refused(tmp_path, grey_folder) -> None:
    Image.new("L", (16, 8)).save(grey_folder / "z.png")
    with pytest.raises(UsageError, match=r"000000.png is 8 x 16 and z.png is 16 x 8; measure one size at a time"):
        list_pictures(grey_folder)
