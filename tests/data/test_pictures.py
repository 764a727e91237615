"""What is read of a picture file is what its viewer sees, wherever it is read; what that changed is counted."""

import io
import json
import logging
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps
from torch.utils.data import DataLoader

from ssd.commands.errors import UsageError
from ssd.data import open_dataset
from ssd.data import prepare as prepare_command
from ssd.data.decoding import background_name, decode, orientation_of
from ssd.data.prepared.copying import write_copy
from ssd.data.readers.hub import open_stored
from ssd.data.reading import read_picture
from ssd.evaluation.images import list_pictures
from ssd.evaluation.statistics import check_compatible

from ..conftest import ROOT
from .picture_kinds import KINDS, SHAPES, Picture, all_pictures, exif, make, orientations, png, saved

SIDE = min(SHAPES[0])
"""Of the images that are asked for: the pictures are only cropped then, which keeps their grey levels."""


def central(image: np.ndarray) -> np.ndarray:
    top, left = ((length - SIDE) // 2 for length in image.shape[:2])
    return image[top : top + SIDE, left : left + SIDE]


def grey_levels(items) -> np.ndarray:
    return np.stack([((item["image"] + 1) * 127.5).permute(1, 2, 0).numpy() for item in items])


def assert_seen(levels: np.ndarray, pictures: list[Picture], background=(255, 255, 255)) -> None:
    """Every image is its picture, to one grey level."""
    assert len(levels) == len(pictures)
    for image, picture in zip(levels, pictures):
        assert np.abs(image - central(picture.over(background))).max() <= 1.001, picture.name


def expected_notes(pictures: list[Picture]) -> list[str]:
    phrases = {
        "turned by {} EXIF tag": sum(picture.turned for picture in pictures),
        "composited over white": sum(picture.composited for picture in pictures),
        "scaled to 8 bits from 16 or 32 bits or from floating point": sum(picture.scaled for picture in pictures),
    }
    return [
        f"{number} of {len(pictures)} pictures read {'was' if number == 1 else 'were'} "
        f"{phrase.format('its' if number == 1 else 'their')}."
        for phrase, number in phrases.items()
        if number
    ]


def write_folder(folder: Path, pictures: list[Picture]) -> Path:
    folder.mkdir(exist_ok=True)
    for picture in pictures:
        (folder / picture.name).write_bytes(picture.data)
    return folder


def write_shard(path: Path, pictures: list[Picture]) -> None:
    """All named .png: it is the content that says what a picture is."""
    with tarfile.open(path, "w") as tar:
        for number, picture in enumerate(pictures):
            info = tarfile.TarInfo(f"{number:06d}.png")
            info.size = len(picture.data)
            tar.addfile(info, io.BytesIO(picture.data))


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    """All kinds with all orientations, sorted by name as a folder is."""
    return sorted(all_pictures(seed=0), key=lambda picture: picture.name)


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("kinds"), pictures)


def test_the_generator_covers_what_it_should(pictures) -> None:
    assert len(pictures) > 300
    assert {Path(picture.name).suffix for picture in pictures} == {
        *(".png", ".jpg", ".tiff", ".webp", ".gif", ".pgm", ".bmp")
    }
    for fact in ("turned", "composited", "scaled"):
        assert 10 < sum(getattr(picture, fact) for picture in pictures) < len(pictures)


def test_folder(pictures, folder) -> None:
    dataset = open_dataset(f"folder:{folder}", SIDE)
    assert dataset.conversion_notes() == []
    assert_seen(grey_levels(dataset), pictures)
    list(dataset)  # a picture that is read again is not counted again
    assert dataset.conversion_notes() == expected_notes(pictures)


def test_another_background(pictures, folder) -> None:
    dataset = open_dataset(f"folder:{folder}", SIDE, background="#0A8")
    assert_seen(grey_levels(dataset), pictures, background=(0, 0xAA, 0x88))
    assert any("composited over #00aa88" in note for note in dataset.conversion_notes())
    assert dataset.provenance["background"] == "#00aa88"


def test_wds(pictures, tmp_path) -> None:
    pytest.importorskip("webdataset")
    write_shard(tmp_path / "x.tar", pictures)
    stream = open_dataset(f"wds:{tmp_path}/x.tar", SIDE)
    assert_seen(grey_levels(stream), pictures)
    assert stream.conversion_notes() == expected_notes(pictures)


def test_hub(pictures, tmp_path, monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {"image": [{"bytes": picture.data, "path": None} for picture in pictures]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    for kind in ("hub", "hub-stream"):
        dataset = open_dataset(f"{kind}:{tmp_path / 'data'}", SIDE)
        assert_seen(grey_levels(dataset), pictures)
        assert dataset.conversion_notes() == expected_notes(pictures)


def test_hub_pictures_in_files_of_their_own(folder, pictures) -> None:
    """Data sets that name their files: a path on this disk, or an address that fsspec opens."""
    for path in (str(folder / pictures[0].name), f"file://{folder / pictures[0].name}"):
        found = np.asarray(decode(open_stored({"bytes": None, "path": path})).picture)
        assert np.abs(found - pictures[0].over()).max() <= 1


def test_prepared(pictures, folder, tmp_path, capsys) -> None:
    prepare_command.main([f"folder:{folder}", "--res", str(SIDE), "--out", str(tmp_path / "copy"), "--workers", "2"])
    printed = capsys.readouterr().out
    copy = open_dataset(f"prepared:{tmp_path / 'copy'}", SIDE)
    assert_seen(grey_levels(copy), pictures)
    assert copy.conversion_notes() == expected_notes(pictures)
    for note in expected_notes(pictures):
        assert note in printed
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    assert manifest["background"] == copy.provenance["background"] == "white"
    assert manifest["conversions"] == {
        fact: sum(getattr(picture, fact) for picture in pictures) for fact in ("turned", "composited", "scaled")
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation(pictures, shape, tmp_path) -> None:
    same = [picture for picture in pictures if picture.alpha.shape[:2] == shape]
    files, size, warnings = list_pictures(write_folder(tmp_path / "images", same))
    assert size == shape
    for found, picture in zip(files, same, strict=True):
        assert np.abs(found - picture.over()).max() <= 1, picture.name
    turned = sum(picture.turned for picture in same)
    assert any(f"{turned} of {len(same)} images in {tmp_path}/images have an EXIF orientation" in w for w in warnings)
    assert sum("have an alpha channel" in warning for warning in warnings) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_folder(tmp_path_factory, data: st.DataObject) -> None:
    """Any folder of these pictures is read as it is seen, whatever the samples, shapes and orientations."""
    made = []
    for number in range(data.draw(st.integers(1, 8))):
        kind = data.draw(st.sampled_from(sorted(KINDS)))
        orientation = data.draw(st.sampled_from(orientations(kind)))
        picture = make(kind, data.draw(st.sampled_from(SHAPES)), orientation, data.draw(st.integers(0, 2**32 - 1)))
        made.append(Picture(f"{number}_{picture.name}", *list(vars(picture).values())[1:]))
    dataset = open_dataset(f"folder:{write_folder(tmp_path_factory.mktemp('any'), made)}", SIDE)
    assert_seen(grey_levels(dataset), made)
    assert dataset.conversion_notes() == expected_notes(made)


@pytest.mark.parametrize("method", ["fork", "forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_conversions_in_worker_processes_are_counted(pictures, folder, tmp_path, method: str) -> None:
    dataset = open_dataset(f"folder:{folder}", SIDE)
    options = {"num_workers": 2 if method == "fork" else 1, "multiprocessing_context": method, "batch_size": 64}
    for _ in DataLoader(dataset, **options):
        pass
    assert dataset.conversion_notes() == expected_notes(pictures)
    if method != "fork":
        return
    pytest.importorskip("webdataset")
    write_shard(tmp_path / "0.tar", pictures[::2])
    write_shard(tmp_path / "1.tar", pictures[1::2])
    stream = open_dataset(f"wds:{tmp_path}/{{0..1}}.tar", SIDE)
    for _ in DataLoader(stream, **options):
        pass
    assert stream.conversion_notes() == expected_notes(pictures)


def open_bytes(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_the_four_pictures_of_the_issue() -> None:
    """EXIF 6, a grey ramp of 16 bits, a drawing on nothing, colours hidden under alpha 0."""
    halves = Image.new("RGB", (96, 64), "blue")
    halves.paste("red", (0, 0, 48, 64))
    seen = np.asarray(decode(open_bytes(saved(halves, "png")(6))).picture)
    assert seen.shape == (96, 64, 3)
    assert (seen[:48] == (255, 0, 0)).all()
    assert (seen[48:] == (0, 0, 255)).all()

    ramp = np.tile(np.linspace(0, 65535, 96).astype(np.int64), (64, 1))
    seen = np.asarray(decode(open_bytes(png(ramp, 16, 0)(1))).picture)
    assert np.abs(seen - np.linspace(0, 255, 96)[:, None]).max() <= 1
    assert abs(seen.mean() - 127.5) < 0.5

    drawing = Image.new("LA", (96, 64), (0, 0))
    ImageDraw.Draw(drawing).rectangle((28, 12, 68, 52), fill=(0, 255))
    seen = np.asarray(decode(open_bytes(saved(drawing, "png")(1))).picture)
    assert (seen[12:53, 28:69] == 0).all()
    assert seen.sum() == 255 * 3 * (96 * 64 - 41 * 41)

    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 4), dtype=np.uint8)
    noise[..., 3] = 0
    noise[12:53, 28:69] = (255, 0, 0, 255)
    seen = np.asarray(decode(open_bytes(saved(Image.fromarray(noise), "png")(1))).picture)
    assert (seen[12:53, 28:69] == (255, 0, 0)).all()
    assert (seen[:12] == 255).all()


PLAIN = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "RGBA", "LA")


@pytest.mark.parametrize("mode", PLAIN)
def test_pictures_that_were_read_rightly_keep_every_bit(mode: str) -> None:
    """Opaque, upright, of 8 bits: what Pillow converts."""
    samples = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(samples)
    image = Image.fromarray(samples, "LAB") if mode == "LAB" else image.convert(mode)
    data = saved(image, "tiff" if mode in ("CMYK", "YCbCr", "LAB") else "png")(1)
    try:
        expected = np.asarray(open_bytes(data).convert("RGB"))
    except OSError:
        pytest.skip(f"Pillow {PIL.__version__} does not read the {mode} file that it wrote")
    picture, conversions = decode(open_bytes(data))
    assert np.array_equal(np.asarray(picture), expected)
    assert not conversions


def test_numbers_of_8_bits_in_wider_types_keep_every_bit() -> None:
    numbers = np.random.default_rng(2).uniform(0, 255, (20, 30))
    for dtype in (np.float32, np.int32):
        data = saved(Image.fromarray(numbers.astype(dtype)), "tiff")(1)
        picture, conversions = decode(open_bytes(data))
        assert np.array_equal(np.asarray(picture), np.asarray(open_bytes(data).convert("RGB")))
        assert not conversions


def test_half_transparent_and_opaque_are_not_the_same() -> None:
    """Composited in 8 bits, to the nearest level."""
    for alpha in (0, 1, 127, 128, 254, 255):
        data = saved(Image.new("RGBA", (2, 2), (200, 100, 0, alpha)), "png")(1)
        for background in ("white", "black", "#12ab00"):
            seen = np.asarray(decode(open_bytes(data), background).picture)[0, 0]
            ground = np.array(Image.new("RGB", (1, 1), background))[0, 0]
            assert np.array_equal(seen, np.rint((np.array([200, 100, 0]) * alpha + ground * (255.0 - alpha)) / 255))


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        (np.array([[-0.1, 1.0]], dtype=np.float32), r"from -0.1 to 1, neither 0\.\.1 nor 0\.\.255"),
        (np.array([[0, 1.1]], dtype=np.float32), r"from 0 to 1.1, neither 0\.\.1 nor 0\.\.255"),
        (np.array([[0, 300.5]], dtype=np.float32), r"from 0 to 300.5, neither 0\.\.1 nor 0\.\.255"),
        (np.array([[0, np.inf]], dtype=np.float32), "from 0 to inf"),
        (np.array([[0, np.nan]], dtype=np.float32), "it holds NaN"),
        (np.array([[-5, 7]], dtype=np.int32), "begin at -5"),
    ],
)
def test_numbers_without_a_grey_level_are_refused_by_name(numbers, reason: str, tmp_path) -> None:
    Image.fromarray(numbers).save(tmp_path / "a.tiff")
    Image.new("L", (4, 4), 7).save(tmp_path / "b.png")
    with pytest.raises(UsageError, match=reason) as error:
        open_dataset(f"folder:{tmp_path}", 1)[0]
    assert str(error.value).startswith(f"Cannot read the image {tmp_path}/a.tiff (")
    assert "\n" not in str(error.value)
    skipping = open_dataset(f"folder:{tmp_path}", 1, skip_bad_images=True)
    assert skipping[0]["image"].mean() == pytest.approx(7 / 127.5 - 1)
    assert skipping.bad_images == ["a.tiff"]
    Image.new("L", (2, 1)).save(tmp_path / "b.png")
    with pytest.raises(UsageError, match=reason):
        list_pictures(tmp_path)[0][0]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_turns_nothing() -> None:
    for block in (b"nonsense", exif(6)[:-9], exif(0), exif(9), b"MM" + exif(6)[2:]):
        file = io.BytesIO()
        Image.new("RGB", (4, 2), "red").save(file, "JPEG", exif=b"Exif\0\0" + block)
        assert orientation_of(open_bytes(file.getvalue())) == 1, block
        assert decode(open_bytes(file.getvalue())).picture.size == (4, 2)


def test_celeba_boxes_lie_in_the_turned_picture(tmp_path) -> None:
    (tmp_path / "img_align_celeba").mkdir()
    portrait = Image.fromarray(np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8))
    lying = portrait.transpose(Image.Transpose.ROTATE_90)
    file = tmp_path / "img_align_celeba" / "000001.png"
    file.write_bytes(saved(lying, "png")(6))
    found = open_dataset(f"celeba:{tmp_path}", 128, preset="ddim128", split="all")
    file.write_bytes(saved(portrait, "png")(1))
    assert torch.equal(found[0]["image"], open_dataset(f"celeba:{tmp_path}", 128, "ddim128", "all")[0]["image"])
    assert ImageOps.exif_transpose(open_bytes(saved(lying, "png")(6))).size == portrait.size


def test_backgrounds_have_one_name() -> None:
    assert [background_name(colour) for colour in ("white", "#fff", "#FFFFFF", "rgb(255, 255, 255)")] == 4 * ["white"]
    assert background_name("#0a0B0c") == "#0a0b0c"
    for colour in ("", "nothing", "#ffffff80", "#ff"):
        with pytest.raises(UsageError, match="is not an opaque colour: give a name such as white") as error:
            open_dataset("digits", 16, background=colour)
        assert repr(colour) in str(error.value)


def test_a_copy_keeps_its_background(tmp_path, capsys) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "images" / "a.png")
    spec = f"folder:{tmp_path}/images"
    prepare_command.main(
        [spec, "--res", "8", "--out", str(tmp_path / "copy"), "--background", "#000", "--workers", "1"]
    )
    assert "1 of 1 pictures read was composited over black." in capsys.readouterr().out
    for background in ("black", "#000", "white"):  # the default stands for "as prepared"
        copy = open_dataset(f"prepared:{tmp_path}/copy", 8, background=background)
        assert copy.provenance["background"] == "black"
        assert copy.conversion_notes() == ["1 of 1 pictures read was composited over black."]
        assert (copy[0]["image"] == -1).all()
    with pytest.raises(UsageError, match="has the background black, but red is asked for"):
        open_dataset(f"prepared:{tmp_path}/copy", 8, background="red")
    with pytest.raises(UsageError, match="another background"):
        write_copy(open_dataset(spec, 8), tmp_path / "copy")


def as_version_1(copy: Path) -> None:
    for name in ("manifest.json", "settings.json"):
        content = json.loads((copy / name).read_text())
        later = {"background", "conversions"}
        content = {key: value for key, value in content.items() if key not in later} | {"version": 1}
        (copy / name).write_text(json.dumps(content))


def test_copies_of_version_1_are_read_with_a_note(image_folder, tmp_path, caplog) -> None:
    original = open_dataset(f"folder:{image_folder}", 16)
    write_copy(original, tmp_path / "copy")
    as_version_1(tmp_path / "copy")
    with caplog.at_level(logging.WARNING, "ssd"):
        copy = open_dataset(f"prepared:{tmp_path}/copy", 16)
    notes = [record.getMessage() for record in caplog.records]
    assert len(notes) == 1
    assert notes[0].startswith(f"{tmp_path}/copy was made before EXIF orientation, transparency")
    assert torch.equal(copy[3]["image"], original[3]["image"])
    assert "background" not in copy.provenance  # so that statistics of it are compared as they were
    assert copy.conversion_notes() == []
    with pytest.raises(UsageError, match="an earlier version, which dropped transparency, but red is asked for"):
        open_dataset(f"prepared:{tmp_path}/copy", 16, background="red")
    with pytest.raises(UsageError, match=r"was made before EXIF orientation.*give another --out, or delete it"):
        write_copy(original, tmp_path / "copy")


def test_statistics_over_different_backgrounds_are_not_compared() -> None:
    check_compatible({"background": "white"}, {"preset": "adm"})  # made before there was a choice
    with pytest.raises(UsageError, match="background is 'black' there and 'white' here"):
        check_compatible({"background": "white"}, {"background": "black"})


def test_errors_of_decoding_name_the_picture(tmp_path) -> None:
    file = tmp_path / "half.png"
    file.write_bytes(saved(Image.effect_noise((64, 64), 50), "png")(1)[:-900])
    with pytest.raises(UsageError, match=r"Cannot read the image .*half\.png"):
        read_picture(partial(Image.open, file), str(file), "white")


def test_there_is_one_decoder() -> None:
    files = [file for room in ("ssd", "flexi_unet", "train", "sample") for file in (ROOT / room).glob("**/*.py")]
    converting = {str(file.relative_to(ROOT)) for file in files if ".convert(" in file.read_text()}
    assert converting == {"ssd/data/decoding.py"}
