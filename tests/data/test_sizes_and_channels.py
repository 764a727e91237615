"""Images that are not square, and grey ones: crops, grey levels, every reader, prepared copies."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssd.commands.errors import UsageError
from ssd.data import open_dataset
from ssd.data import prepare as prepare_command
from ssd.data.decoding import decode
from ssd.data.prepared.copying import write_copy
from ssd.data.transforms import center_crop_resize

from .made_data import write_tar
from .test_layouts import make_celeba, make_imagenet, picture

SIZE = (24, 16)
GREY_NOTE = "{0} of {0} pictures read were converted from colour to grey."


def noise(height: int, width: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def square_crop(image: Image.Image, side: int) -> Image.Image:
    """The crop as it was when all images were square."""
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.BOX)
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


sides = st.integers(1, 90)


@settings(max_examples=200, deadline=None)
@given(sides, sides, st.integers(1, 40))
def test_squares_are_cropped_as_before(height: int, width: int, side: int) -> None:
    image = noise(height, width)
    assert np.array_equal(np.asarray(center_crop_resize(image, (side, side))), np.asarray(square_crop(image, side)))


@settings(max_examples=300, deadline=None)
@given(sides, sides, st.integers(1, 60), st.integers(1, 60))
def test_boxes_have_their_size_and_keep_the_centre(height: int, width: int, rows: int, columns: int) -> None:
    """Of a ramp from left to right and one from top to bottom: the mean stays, as it does in a central crop."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    ramps = Image.fromarray(np.stack([across, down, 255 - across], axis=2).round().astype(np.uint8))
    found = np.asarray(center_crop_resize(ramps, (rows, columns)), dtype=float)
    assert found.shape == (rows, columns, 3)
    scale = max(rows / height, columns / width)
    for channel, side in ((0, width), (1, height)):  # halving odd sides and rounding may move the centre by a pixel
        pixel = 255 / (scale * side) + 2 * 255 / side
        assert abs(found[..., channel].mean() - np.asarray(ramps)[..., channel].mean()) <= 2 + pixel


def test_a_box_is_cut_from_the_picture_that_just_covers_it() -> None:
    """Halved while both sides are at least twice the target: twice for 100 x 300 to 24 x 16, once for 300 x 40."""
    wide = noise(100, 300)
    covering = wide.resize((150, 50), Image.BOX).resize((75, 25), Image.BOX).resize((72, 24), Image.BICUBIC)
    assert np.array_equal(np.asarray(center_crop_resize(wide, SIZE)), np.asarray(covering)[:, 28:44])
    tall = noise(300, 40)
    covering = tall.resize((20, 150), Image.BOX).resize((16, 120), Image.BICUBIC)
    assert np.array_equal(np.asarray(center_crop_resize(tall, SIZE)), np.asarray(covering)[48:72])


def stored(image: Image.Image, **options: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return Image.open(file)


def test_grey_is_pillows_luma_of_what_a_viewer_sees() -> None:
    colours = noise(20, 30)
    grey, conversions = decode(stored(colours), channels=1)
    assert grey.mode == "L"
    assert np.array_equal(np.asarray(grey), np.asarray(colours.convert("L")))
    luma = np.asarray(colours, dtype=float) @ [0.299, 0.587, 0.114]
    assert np.abs(np.asarray(grey) - luma).max() <= 0.51
    assert conversions.name == "GREYED"

    clear = Image.merge("RGBA", [*colours.split(), noise(20, 30, 1, "L")])
    assert np.array_equal(
        np.asarray(decode(stored(clear), "red", 1).picture),
        np.asarray(decode(stored(clear), "red").picture.convert("L")),
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(stored(colours, exif=exif), channels=1).picture.size == (20, 30)


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "1", "P", "I;16"])
def test_grey_pictures_keep_every_bit_and_are_not_counted(mode: str) -> None:
    levels = np.random.default_rng(2).integers(0, 2, (20, 30), dtype=np.uint8) * 255
    if mode == "I;16":
        image = stored(Image.fromarray(levels.astype(np.uint16) * 257))
    else:
        image = stored(Image.fromarray(levels).convert(mode))
    grey, conversions = decode(image, channels=1)
    assert np.array_equal(np.asarray(grey), levels)
    assert "GREYED" not in str(conversions.name)


def write_folder(folder: Path, count: int = 5) -> Path:
    folder.mkdir()
    for number in range(count):
        noise(50, 40, number).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def specs(tmp_path) -> dict[str, str]:
    """The same kinds of pictures in every layout."""
    folder = write_folder(tmp_path / "folder")
    make_celeba(tmp_path / "celeba")
    make_imagenet(tmp_path / "imagenet")
    np.savez(tmp_path / "x.npz", images=np.stack([np.asarray(noise(50, 40, number)) for number in range(5)]))
    write_tar(tmp_path / "x.tar", {file.name: file.read_bytes() for file in sorted(folder.iterdir())})
    return {
        "digits": "digits",
        "folder": f"folder:{folder}",
        "npz": f"npz:{tmp_path}/x.npz",
        "celeba": f"celeba:{tmp_path}/celeba",
        "imagenet": f"imagenet:{tmp_path}/imagenet",
        "wds": f"wds:{tmp_path}/x.tar",
        "hub": f"hub:{tmp_path}/hub",
        "hub-stream": f"hub-stream:{tmp_path}/hub",
    }


@pytest.mark.parametrize("kind", ["digits", "folder", "npz", "celeba", "imagenet", "wds", "hub", "hub-stream"])
def test_every_reader(kind: str, specs, tmp_path, monkeypatch) -> None:
    if kind == "wds":
        pytest.importorskip("webdataset")
    if kind.startswith("hub"):
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        rows = {"image": [noise(50, 40, number) for number in range(5)]}
        datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).to_parquet(tmp_path / "hub/a.parquet")
    colour, grey = open_dataset(specs[kind], SIZE), open_dataset(specs[kind], list(SIZE), channels=1)
    items, greys = list(colour), list(grey)
    assert len(items) == len(greys) > 1
    assert {item["image"].shape for item in items} == {(3, *SIZE)}
    assert {item["image"].shape for item in greys} == {(1, *SIZE)}
    assert all(item["image"].is_contiguous() for item in greys if kind != "digits")
    for item, other in zip(items[:5], greys):
        luma = torch.einsum("chw,c->hw", item["image"], torch.tensor([0.299, 0.587, 0.114]))
        assert (luma - other["image"][0]).abs().max() < 4 / 127.5  # rounded before or after resizing, overshoot clipped
    assert colour.provenance == {**colour.provenance, "size": [24, 16]}
    assert "channels" not in colour.provenance
    assert grey.provenance == colour.provenance | {"channels": 1}
    assert grey.conversion_notes() == ([] if kind == "digits" else [GREY_NOTE.format(len(greys))])
    assert colour.conversion_notes() == []
    assert open_dataset(specs[kind], 16).provenance["size"] == 16


def test_digits_are_stretched_and_not_cut() -> None:
    whole, stretched = open_dataset("digits", 8), open_dataset("digits", (16, 8), channels=1)
    reduced = torch.nn.functional.avg_pool2d(stretched[3]["image"], (2, 1))
    assert (reduced - whole[3]["image"][:1]).abs().max() < 0.35
    assert torch.equal(open_dataset("digits", (8, 8), channels=1)[3]["image"], whole[3]["image"][:1])


def test_grey_archives(tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    grey, colour = (open_dataset(f"npz:{tmp_path}/x.npy", 8, channels=channels) for channels in (1, 3))
    assert np.array_equal(grey.pixels(1), images[1])
    assert np.array_equal(colour.pixels(1), images[1].repeat(3, axis=2))
    list(grey)
    assert grey.conversion_notes() == []


def test_a_prepared_copy(tmp_path, capsys) -> None:
    spec = f"folder:{write_folder(tmp_path / 'folder')}"
    flags = [spec, "--res", "[24, 16]", "--channels", "1", "--workers", "2", "--out", str(tmp_path / "copy")]
    prepare_command.main(flags)
    printed = capsys.readouterr().out
    assert "5 images of 24 x 16 (height x width) in" in printed
    assert GREY_NOTE.format(5) in printed
    assert f"--data prepared:{tmp_path}/copy --res '[24, 16]' --channels 1\n" in printed
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    assert (manifest["size"], manifest["channels"]) == ([24, 16], 1)
    assert manifest["conversions"] == {"turned": 0, "composited": 0, "scaled": 0, "greyed": 5}
    assert np.load(tmp_path / "copy" / "images.npy").shape == (5, 24, 16, 1)
    assert Image.open(tmp_path / "copy" / "preview.png").mode == "L"
    original, copy = (open_dataset(s, SIZE, channels=1) for s in (spec, f"prepared:{tmp_path}/copy"))
    assert all(torch.equal(one["image"], two["image"]) for one, two in zip(original, copy, strict=True))
    assert copy.provenance == original.provenance | {"hash": manifest["hash"]}
    assert copy.conversion_notes() == [GREY_NOTE.format(5)]
    assert write_copy(original, tmp_path / "copy")[1] == 0
    for size, channels, message in (
        (SIZE, 3, r"has grey images, but colour \(RGB\) ones are asked for"),
        (SIZE[::-1], 1, r"images of 24 x 16 \(height x width\), but 16 x 24 \(height x width\) are asked for"),
        (16, 1, r"images of 24 x 16 \(height x width\), but 16 x 16 are asked for"),
    ):
        with pytest.raises(UsageError, match=message):
            open_dataset(f"prepared:{tmp_path}/copy", size, channels=channels)
    with pytest.raises(UsageError, match="another channels"):
        write_copy(open_dataset(spec, SIZE), tmp_path / "copy")


def test_a_square_colour_copy_is_as_it_was(tmp_path) -> None:
    """Settings and manifest have the entries, and only those, that they had when all copies were such."""
    original = open_dataset(f"folder:{write_folder(tmp_path / 'folder')}", (16, 16))
    write_copy(original, tmp_path / "copy")
    settings = json.loads((tmp_path / "copy" / "settings.json").read_text())
    assert settings["size"] == 16
    assert set(settings) == {
        *("spec", "preset", "filter", "background", "split", "size", "count", "num_classes", "source_hash"),
        *("skip_bad_images", "format", "version"),
    }
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    assert manifest["conversions"] == {"turned": 0, "composited": 0, "scaled": 0}
    assert "channels" not in manifest


@pytest.mark.parametrize("damage", [{"channels": 2}, {"size": [24, 0]}, {"size": [24]}, {"size": 0}])
def test_damaged_manifests(damage: dict, tmp_path) -> None:
    write_copy(open_dataset(f"folder:{write_folder(tmp_path / 'folder')}", SIZE, channels=1), tmp_path / "copy")
    file = tmp_path / "copy" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(UsageError, match=r"manifest\.json is damaged .*prepare the copy again"):
        open_dataset(f"prepared:{tmp_path}/copy", SIZE, channels=1)


@pytest.mark.parametrize(
    ("size", "channels", "message"),
    [
        (0, 3, "must be at least 1, got 0"),
        ([16, -1], 3, r"must be at least 1, got \[16, -1\]"),
        ([16], 3, r"must be one number, or two for \[height, width\], got \[16\]"),
        ([16, 16, 3], 3, "must be one number"),
        ([16, 8.5], 3, "must be one number"),
        (16, 2, r"number of channels must be 3 for colour \(RGB\) or 1 for grey, got 2"),
        (16, 4, "got 4"),
    ],
)
def test_sizes_and_channels_that_images_cannot_have(size, channels: int, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        open_dataset("digits", size, channels=channels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("preset", ["ddim128", "sde140"])
def test_celeba_presets_are_for_squares(preset: str, tmp_path) -> None:
    make_celeba(tmp_path)
    with pytest.raises(UsageError, match=r"cuts out a square, but images of 24 x 16 \(height x width\) are asked for"):
        open_dataset(f"celeba:{tmp_path}", SIZE, preset=preset)
    grey = open_dataset(f"celeba:{tmp_path}", 64, preset=preset, channels=1)
    assert grey[0]["image"].shape == (1, 64, 64)


def test_an_aligned_portrait_can_keep_its_shape() -> None:
    """CelebA's 178 x 218 as 109 rows of 89 columns: nothing is cut."""
    whole = picture(0)
    assert np.array_equal(
        np.asarray(center_crop_resize(whole, (109, 89))), np.asarray(whole.resize((89, 109), Image.BOX))
    )
