"""Images of a known geometry: the formulas, against published numbers and dense transforms; the data sets of them."""

import json

import numpy as np
import pytest
import torch
from scipy.linalg import dft

from ssd.commands.errors import UsageError
from ssd.data import open_dataset
from ssd.data import prepare as prepare_command
from ssd.data.image_classes import (
    c_alpha_image,
    c_alpha_numbers,
    disc_image,
    disc_parameters,
    mask_below,
    pixel_permutation,
    rescaled_image,
    shuffle,
    sine_image,
    sine_parameters,
    smooth,
    smoothing_gains,
)

from ..conftest import ROOT

GOLDEN = np.load(ROOT / "tests" / "golden" / "denoisers" / "images_and_similarity.npz")
"""Made with the published code in float32, frequencies shifted so that zero is in the middle."""

FLOAT32 = 2e-6
SIZE = (24, 16)
SPECS = ["calpha:2", "calpha:0.5", "discs", "sines"]


def relative_error(found: np.ndarray, golden: np.ndarray) -> float:
    return float(np.abs(found - golden).max() / np.abs(golden).max())


def test_gains_are_the_published_ones() -> None:
    for golden in (GOLDEN["filter_1d"], GOLDEN["filter_2d"]):
        assert relative_error(np.fft.fftshift(smoothing_gains(golden.shape)), golden) < FLOAT32


@pytest.mark.parametrize("alpha", [1, 2, 3.5])
def test_contours_backgrounds_and_masks_are_the_published_ones(alpha: float) -> None:
    golden = {name: GOLDEN[f"a{alpha}.{name}"] for name in ("contour", "background", "mask")}
    contour = smooth(GOLDEN[f"a{alpha}.uniform_1d"].astype(np.float64), alpha)
    background = smooth(GOLDEN[f"a{alpha}.uniform_2d"].astype(np.float64), alpha)
    assert relative_error(contour, golden["contour"]) < FLOAT32
    assert relative_error(background, golden["background"]) < FLOAT32
    assert np.array_equal(mask_below(contour, 20), golden["mask"])


@pytest.mark.parametrize("size", [(12, 12), (9, 12), (12, 7)])
def test_smoothing_is_the_dense_transform(size: tuple[int, int]) -> None:
    """F^-1 diag(g^alpha) F, with F a matrix and g written out by its definition."""
    uniform = np.random.default_rng(0).random(size)
    rows, columns = (dft(side) for side in size)
    expected = rows @ (2 * uniform - 1) @ columns
    for i in range(size[0]):
        for j in range(size[1]):
            k = np.hypot(*(min(n, side - n) / side * max(size) for n, side in zip((i, j), size)))
            expected[i, j] /= (k or max(size) / size[1]) ** 1.5
    expected = (rows.conj() @ expected @ columns.conj()).real / uniform.size
    assert np.abs(smooth(uniform, 1.5) - expected).max() < 1e-12 * np.abs(expected).max()


def test_contours_outside_the_image_are_clipped() -> None:
    mask = mask_below(np.array([-3.0, -0.51, 0.0, 0.51, 3.0]), 10)
    assert mask.sum(0).tolist() == [10, 10, 5, 0, 0]


def test_c_alpha_images_are_two_backgrounds_with_an_edge() -> None:
    size, alpha = (32, 32), 2.0
    contour, backgrounds, _ = c_alpha_numbers(0, 3, size)
    above, below = (c_alpha_image(contour, backgrounds, levels, alpha) for levels in ((0.9, 0.6, 0.3), (0.1, 0.6, 0.3)))
    mask = mask_below(smooth(contour, alpha), 32)
    padded = np.pad(mask, 1, mode="reflect")
    blurred = (padded[:-1, :-1] + padded[1:, :-1] + padded[:-1, 1:] + padded[1:, 1:])[:-1, :-1] / 4
    inside = blurred == 1
    assert 0 < inside.sum() < 1024
    assert below[inside].min() >= 0.6  # b1 in [v1, 1]
    assert above[inside].max() <= 0.3  # b1 in [0, v2]
    bright, dark = smooth(backgrounds[0], alpha), smooth(backgrounds[1], alpha)
    bright, dark = ((image - image.min()) / np.ptp(image) for image in (bright, dark))
    expected = (0.6 + 0.4 * bright) * blurred + 0.3 * dark * (1 - blurred)
    assert np.abs(below - expected).max() < 1e-14
    sharp = c_alpha_image(contour, backgrounds, (0.1, 0.6, 0.3), alpha, blur=1)
    assert np.array_equal(sharp >= 0.5, mask == 1)


def test_higher_alpha_is_smoother() -> None:
    def roughness(alpha: float) -> float:
        return sum(np.abs(np.diff(smooth(c_alpha_numbers(0, i, (32, 32))[1][0], alpha))).sum() for i in range(4))

    rough = [roughness(alpha) for alpha in (1, 2, 3, 5)]
    assert sorted(rough, reverse=True) == rough


def test_discs_have_their_area_and_brightness() -> None:
    """The coverage of a whole disc sums to its area, but for the pixels that the formula rounds: about pi / 12."""
    for index in range(20):
        parameters = disc_parameters(0, index, (64, 48))
        y, x, radius, foreground, background = parameters.tolist()
        assert radius <= min(y, x, 64 - y, 48 - x)
        area = (disc_image(parameters, (64, 48)) - background).sum() / (foreground - background)
        assert float(area) == pytest.approx(np.pi * radius**2, rel=0.02)
        assert float(disc_image(parameters, (64, 48))[int(y), int(x)]) == pytest.approx(foreground)


def test_a_disc_whose_centre_is_a_pixels_has_derivatives() -> None:
    parameters = torch.tensor([4.5, 4.5, 2.2, 1.0, 0.0], dtype=torch.float64)
    assert torch.func.jacfwd(lambda p: disc_image(p, (9, 9)))(parameters).isfinite().all()


def test_sines_are_a_cone() -> None:
    parameters = sine_parameters(0, 5)
    whole, half = (2 * sine_image(parameters * torch.tensor([scale, 1.0]), SIZE) - 1 for scale in (1.0, 0.5))
    torch.testing.assert_close(half, whole / 2, rtol=1e-12, atol=1e-15)
    assert float(whole.abs().max()) <= float(parameters[0])
    flat = 2 * sine_image(torch.tensor([1.0, 0.0], dtype=torch.float64), (8, 30)) - 1
    assert torch.equal(flat, flat[:1].expand(8, -1))
    changes = int((flat[0].sign().diff() != 0).sum())
    assert changes in (22, 23)  # 3 periods on 8 pixels, so 22.5 zeros on 30
    assert rescaled_image(torch.tensor([0.25]), torch.ones(2, 2)).tolist() == [[0.25, 0.25], [0.25, 0.25]]


def test_shuffling_is_one_orthogonal_map() -> None:
    order = pixel_permutation(0, SIZE)
    images = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
    mixed = shuffle(images, order)
    assert not torch.equal(mixed, images)
    assert torch.equal(shuffle(mixed, order.argsort()), images)
    assert torch.equal(shuffle(images[1], order), mixed[1])


@pytest.mark.parametrize("spec", SPECS)
def test_items(spec: str) -> None:
    grey, colour = open_dataset(spec, SIZE, channels=1), open_dataset(spec, SIZE)
    batch = grey.__getitems__([5, 0, 7])
    for item, index in zip(batch, (5, 0, 7)):
        assert item["image"].shape == (1, *SIZE)
        assert item["image"].abs().max() <= 1
        assert torch.equal(item["image"], grey[index]["image"])  # whatever else is read
        assert torch.equal(item["image"].expand(3, -1, -1), colour[index]["image"])
    assert not torch.equal(batch[0]["image"], batch[1]["image"])
    exact = grey.image(5, SIZE)
    assert np.abs((batch[0]["image"][0].numpy() + 1) / 2 - exact).max() <= 0.5 / 255 + 1e-6
    assert exact.min() >= 0
    assert exact.max() <= 1


@pytest.mark.parametrize("spec", SPECS)
def test_parts_and_provenance(spec: str) -> None:
    train, test = (open_dataset(spec, SIZE, split=split, channels=1) for split in ("train", "test"))
    assert (len(train), len(test)) == (100_000, 10_000)
    assert not set(train.numbers) & set(test.numbers)
    said = train.provenance
    assert (said["spec"], said["preset"], said["split"], said["count"]) == (spec, "none", "train", 100_000)
    assert said["hash"] == open_dataset(spec, SIZE).provenance["hash"]
    hashes = [open_dataset(other, SIZE).provenance["hash"] for other in SPECS] + [test.provenance["hash"]]
    assert len(set(hashes)) == len(hashes)
    with pytest.raises(IndexError):
        train[100_000]


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("calpha:0", {}, "ALPHA in calpha:ALPHA must be a positive number such as calpha:2, got '0'"),
        ("calpha:nan", {}, "must be a positive number"),
        ("calpha:inf", {}, "must be a positive number"),
        ("calpha:smooth", {}, "got 'smooth'"),
        ("calpha", {}, "Unknown data set 'calpha'"),
        ("discs:5", {}, "Unknown data set 'discs:5'"),
        ("discs", {"size": 3}, "discs needs sides of at least 4 pixels, got 3 x 3"),
        ("discs", {"preset": "ddim128"}, "discs has nothing to crop: leave the preset at adm, got ddim128"),
        ("sines", {"split": "valid"}, "sines has no split 'valid': use one of train, test"),
        ("sines", {"labels": True}, "sines has none"),
    ],
)
def test_bad_requests_are_explained(spec: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_dataset(spec, **({"size": 16} | options))


def test_a_prepared_copy_holds_the_same_images(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ssd.data.readers.image_classes.SPLITS", {"train": range(10), "test": range(10, 18)})
    out = tmp_path / "copy"
    arguments = ["calpha:2", "--res", "[16, 8]", "--channels", "1", "--split", "test", "--out", str(out)]
    prepare_command.main([*arguments, "--workers", "1"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["spec"], manifest["count"], manifest["preset"]) == ("calpha:2", 8, "none")
    copy = open_dataset(f"prepared:{out}", (16, 8), channels=1)
    original = open_dataset("calpha:2", (16, 8), split="test", channels=1)
    assert [torch.equal(a["image"], b["image"]) for a, b in zip(copy, original, strict=True)] == [True] * 8
