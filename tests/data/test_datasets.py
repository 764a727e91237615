"""Data sets: values, shapes, damaged input."""

import numpy as np
import pytest
import torch
from PIL import Image

from ssd.commands.errors import UsageError
from ssd.data import open_dataset
from ssd.data.transforms import center_crop_resize, pixels_to_tensor


def check_items(dataset, size: int) -> None:
    for index in range(min(len(dataset), 6)):
        image = dataset[index]["image"]
        assert image.shape == (3, size, size)
        assert image.dtype == torch.float32
        assert image.min() >= -1
        assert image.max() <= 1


def test_digits() -> None:
    dataset = open_dataset("digits", 16)
    assert len(dataset) == 1797
    assert dataset[5]["label"] == 5
    check_items(dataset, 16)
    image = open_dataset("digits", 8)[0]["image"]
    assert torch.equal(image[0], image[2])
    steps = (image + 1) * 8  # 17 grey values, 0..16
    assert torch.equal(steps, steps.round())


def test_folder(image_folder) -> None:
    dataset = open_dataset(f"folder:{image_folder}", 16)
    assert [file.name for file in dataset.files] == ["a.png", "b.jpg", "c.png", "d.webp", "e.png", "f.PNG"]
    check_items(dataset, 16)


def test_npz(tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images)
    dataset = open_dataset(f"npz:{tmp_path / 'x.npz'}", 16)
    assert len(dataset) == 3
    check_items(dataset, 16)
    same = open_dataset(f"npz:{tmp_path / 'x.npz'}", 20)[1]["image"]
    torch.testing.assert_close(same, pixels_to_tensor(images[1:2, :, 2:22])[0])


def test_crop_is_central_and_square() -> None:
    image = Image.new("RGB", (80, 40), "black")
    image.paste("white", (20, 0, 60, 40))
    assert np.array(center_crop_resize(image, (10, 10))).min() == 255


@pytest.mark.parametrize("spec", ["digit", "digits:x", "folder", "folder:", "npz", ""])
def test_unknown_names_list_the_known(spec: str) -> None:
    with pytest.raises(UsageError, match=r"use one of digits, folder:PATH, npz:PATH"):
        open_dataset(spec, 16)


def test_missing_and_empty_folders(tmp_path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        open_dataset(f"folder:{tmp_path / 'nothing'}", 16)
    with pytest.raises(UsageError, match="is empty"):
        open_dataset(f"folder:{tmp_path}", 16)


def test_a_file_that_is_called_an_image_but_is_not_is_named(image_folder) -> None:
    (image_folder / "more" / "fake.png").write_text("hello")
    with pytest.raises(UsageError, match=r"fake\.png is not an image"):
        open_dataset(f"folder:{image_folder}", 16)


def test_a_truncated_image_is_named_when_it_is_read(image_folder) -> None:
    file = image_folder / "b.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    dataset = open_dataset(f"folder:{image_folder}", 16)
    with pytest.raises(UsageError, match=r"Cannot read the image .*b\.jpg"):
        dataset[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": np.zeros((2, 8, 8, 3), dtype=np.float32)}, "must be uint8"),
        ({"images": np.zeros((2, 3, 8, 8), dtype=np.uint8)}, r"\(N, H, W, 3\)"),
        ({"images": np.zeros((0, 8, 8, 3), dtype=np.uint8)}, "N >= 1"),
        (
            {"pictures": np.zeros((2, 8, 8, 3), dtype=np.uint8)},
            r"no array 'images' \(or 'arr_0'\), only \['pictures'\]",
        ),
        ({"images": np.array([object()])}, "cannot be read as plain arrays"),
    ],
)
def test_wrong_archives_are_explained(tmp_path, content: dict, message: str) -> None:
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(UsageError, match=message):
        open_dataset(f"npz:{tmp_path / 'x.npz'}", 8)


def test_damaged_archives_are_explained(tmp_path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        open_dataset(f"npz:{tmp_path / 'x.npz'}", 8)
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 8, 8, 3), dtype=np.uint8))
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="not a complete npz archive"):
        open_dataset(f"npz:{tmp_path / 'x.npz'}", 8)
