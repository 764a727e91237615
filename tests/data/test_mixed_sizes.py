"""Pictures smaller than the images asked for: which level each fills, and what is read of it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ssd.commands.errors import UsageError
from ssd.data import open_dataset
from ssd.data.held_out import hold_out
from ssd.data.mixed_sizes import finest_filled, without_enlarging
from ssd.data.prepare import main
from ssd.data.some_images import some_images
from ssd.data.transforms import center_crop_resize

from ..training.small_pictures import NOTE, SIDES, write_pictures

SIZES = [(16, 16), (8, 8), (4, 4)]


@pytest.fixture
def folder(tmp_path):
    return write_pictures(tmp_path / "pictures")


def test_a_level_is_filled_by_what_cropping_does_not_enlarge() -> None:
    """Against the resize itself: the picture that it makes just covers the size."""
    rng = np.random.default_rng(0)
    sides = rng.integers(2, 40, (60, 2))
    for (height, width), found in zip(sides, finest_filled(sides, SIZES)):
        scales = [max(size[0] / height, size[1] / width) for size in SIZES]
        assert found == next((level for level, scale in enumerate(scales) if scale <= 1), 3)


def test_every_picture_is_read_at_its_own_level(folder) -> None:
    dataset = open_dataset(f"folder:{folder}", 16)
    images = without_enlarging(dataset, SIZES, "levels")
    assert images.levels.tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert len(images) == 8
    for index in range(8):
        size = SIZES[images.levels[index]]
        expected = center_crop_resize(Image.open(folder / f"{index}.png"), size)
        assert torch.equal(((images[index]["image"] + 1) * 127.5).round().byte().permute(1, 2, 0), to_tensor(expected))
    assert images.opening_notes == [NOTE]
    assert images.conversion_notes() == []
    assert (images.provenance["count"], images.provenance["hash"]) == (8, dataset.provenance["hash"])
    assert dataset.opening_notes == []


def to_tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture))


def test_skipping_leaves_small_pictures_out(folder) -> None:
    images = without_enlarging(open_dataset(f"folder:{folder}", 16), SIZES, "skip")
    assert images.levels is None
    assert len(images) == images.provenance["count"] == 4
    assert {item["image"].shape for item in images} == {(3, 16, 16)}
    assert images.opening_notes == ["of 10 pictures 4 fill 16 x 16; 6 fill none of these and are left out."]


def test_enlarging_is_counted(folder) -> None:
    dataset = open_dataset(f"folder:{folder}", 16)
    list(dataset)
    assert dataset.conversion_notes() == ["6 of 10 pictures read were smaller than the size asked for, and enlarged."]


def test_large_pictures_change_nothing(tmp_path) -> None:
    dataset = open_dataset(f"folder:{write_pictures(tmp_path / 'large', (16, 17, 40))}", 16)
    assert without_enlarging(dataset, SIZES, "levels") is dataset
    assert without_enlarging(dataset, SIZES, "skip") is dataset


def test_a_turned_picture_has_the_sides_that_a_viewer_shows(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "a" / "turned.jpg", exif=exif)
    assert open_dataset(f"folder:{tmp_path / 'a'}", [20, 10]).picture_sizes().tolist() == [[20, 10]]


def test_arrays_and_tables_have_sizes(tmp_path, monkeypatch) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 9, 12, 3), dtype=np.uint8))
    archive = without_enlarging(open_dataset(f"npz:{tmp_path / 'x.npy'}", 9), [(9, 9)], "skip")
    assert len(archive) == 3
    with pytest.raises(UsageError, match=r"None of the 3 pictures of npz:.* fills 16 x 16, .* use a smaller --res"):
        without_enlarging(open_dataset(f"npz:{tmp_path / 'x.npy'}", 16), SIZES, "levels")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {"image": [Image.new("RGB", (side, side)) for side in SIDES]}
    datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).to_parquet(tmp_path / "hub/a.parquet")
    table = without_enlarging(open_dataset(f"hub:{tmp_path}/hub", 16), SIZES, "levels")
    assert table.levels.tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert table[4]["image"].shape == (3, 8, 8)


@pytest.mark.parametrize("spec", ["calpha:2", "prepared"])
def test_data_without_sizes_of_their_own_are_refused(spec: str, tmp_path) -> None:
    if spec == "prepared":
        folder = write_pictures(tmp_path / "pictures")
        main([f"folder:{folder}", "--res", "16", "--workers", "1", "--out", str(tmp_path / "copy")])
        assert json.loads((tmp_path / "copy" / "manifest.json").read_text())["conversions"]["enlarged"] == 6
        spec = f"prepared:{tmp_path / 'copy'}"
    with pytest.raises(UsageError, match="small_images") as error:
        without_enlarging(open_dataset(spec, 16), SIZES, "levels")
    assert "\n" not in str(error.value)


def test_unreadable_pictures_are_left_out_or_replaced_by_one_that_fills_the_level(folder) -> None:
    (folder / "0.png").write_bytes(b"no picture")  # noticed in the header
    damaged = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(damaged[:60])  # its header is whole
    images = without_enlarging(open_dataset(f"folder:{folder}", 16, skip_bad_images=True), SIZES, "levels")
    assert images.levels.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert torch.equal(images[2]["image"], images[0]["image"])  # the next picture that fills 16 x 16, after the last
    assert images.bad_images == ["0.png", "3.png"]


def test_held_out_and_measured_images_have_the_full_size(folder) -> None:
    images = without_enlarging(open_dataset(f"folder:{folder}", 16), SIZES, "levels")
    rest, held_out = hold_out(images, 3)
    assert held_out.levels.tolist() == [0, 0, 0]
    assert sorted(rest.levels.tolist()) == [0, 1, 1, 1, 2]
    assert sorted(rest.indices + held_out.indices) == list(range(8))
    assert [image.shape for image in some_images(images, 100, 0)] == [(3, 16, 16)] * 4
    with pytest.raises(UsageError, match="Of 4 images between 1 and 3 can be held out, got 4"):
        hold_out(images, 4)
