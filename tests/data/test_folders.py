"""Folders of pictures: links, other files, and what is said about them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd.commands.errors import UsageError, exit_on_usage_error
from ssd.data import open_dataset
from ssd.data.files import Listing
from ssd.evaluation.images import list_pictures


def save(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(file, "PNG")


@pytest.fixture
def linked(tmp_path) -> Path:
    """Two pictures, one of them behind a link, with loops, a folder that is linked twice, and a dead link."""
    root = tmp_path / "images"
    save(root / "a.png")
    save(tmp_path / "elsewhere" / "deep" / "b.png")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "once more").symlink_to(tmp_path / "elsewhere" / "deep")
    (root / "self").symlink_to(root)
    (tmp_path / "elsewhere" / "deep" / "up").symlink_to("..")
    (root / "dead.png").symlink_to(tmp_path / "nothing.png")
    (root / "loop").symlink_to("loop")
    return root


FOUND = ["a.png", "once more/b.png"]


def check_notes(notes: list[str]) -> None:
    assert len(notes) == 2
    assert "Links that lead nowhere were passed over, 2 in all; the first is dead.png." in notes[0]
    assert "Links that lead to folders that are read already were passed over, 3 in all; the first is self." in notes[1]


def test_links_to_folders_are_followed_once(linked) -> None:
    dataset = open_dataset(f"folder:{linked}", 8)
    assert [dataset.image_name(index) for index in range(len(dataset))] == FOUND
    check_notes(dataset.opening_notes)
    assert Listing(linked).names == FOUND


def test_evaluation_follows_links_too(linked) -> None:
    pictures, size, warnings = list_pictures(linked)
    assert [file.relative_to(linked).as_posix() for file in pictures.files] == FOUND
    assert size == (8, 8)
    check_notes(warnings)


def test_what_is_not_a_picture_is_counted(tmp_path) -> None:
    for name in ("a.png", "b.jpeg", "0123abcd"):  # a picture needs no extension, as before
        save(tmp_path / name)
    for name in ("a.json", "b.TXT", "c.txt", "Thumbs.db", "README", ".DS_Store"):
        (tmp_path / name).write_text("hello")
    note = "5 files that are not pictures were skipped: 2 .txt, 1 without extension, 1 .db, 1 .json."
    dataset = open_dataset(f"folder:{tmp_path}", 8)
    assert [dataset.image_name(index) for index in range(3)] == ["0123abcd", "a.png", "b.jpeg"]
    assert dataset.opening_notes == [f"folder:{tmp_path}: {note}"]
    assert list_pictures(tmp_path)[2] == [f"{tmp_path}: {note}"]
    for name in ("a.png", "b.jpeg", "0123abcd"):
        (tmp_path / name).unlink()
    for opened in (lambda: open_dataset(f"folder:{tmp_path}", 8), lambda: list_pictures(tmp_path)):
        with pytest.raises(UsageError, match=r"is empty.* 5 files that are not pictures were skipped"):
            opened()
    (tmp_path / "c.webp").write_text("hello")
    for opened in (lambda: open_dataset(f"folder:{tmp_path}", 8), lambda: list_pictures(tmp_path)):
        with pytest.raises(UsageError, match=r"c\.webp is not an image"):
            opened()


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_evaluation_reads_arrays(tmp_path, suffix: str) -> None:
    """As guided-diffusion writes its samples: arr_0, or one array alone."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    file = tmp_path / f"samples{suffix}"
    np.savez(file, images) if suffix == ".npz" else np.save(file, images)
    pictures, size, warnings = list_pictures(file)
    assert (len(pictures), size, warnings) == (3, (8, 12), [])
    assert all(np.array_equal(found, expected) for found, expected in zip(pictures, images, strict=True))
    np.savez(file, images[:1]) if suffix == ".npz" else np.save(file, images[:1])
    with pytest.raises(UsageError, match="holds one image"):
        list_pictures(file)
    file.unlink()
    with pytest.raises(UsageError, match="does not exist"):
        list_pictures(file)


@pytest.mark.parametrize("spec", ["/data/nowhere", "data/nowhere", "."])
def test_a_path_alone_is_meant_as_a_folder(spec: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean folder:{spec}"):
        open_dataset(spec, 8)


def test_file_names_do_not_steer_the_terminal(tmp_path, capsys) -> None:
    name = "a\x1b[2J\x07\u202eb.png"
    (tmp_path / name).write_text("hello")
    with pytest.raises(SystemExit), exit_on_usage_error():
        open_dataset(f"folder:{tmp_path}", 8)
    printed = capsys.readouterr().err
    assert r"a\x1b[2J\x07\u202eb.png is not an image" in printed
    assert printed.rstrip("\n").isprintable()
    (tmp_path / name).rename(tmp_path / os.fsdecode(b"\xff.png"))
    with pytest.raises(SystemExit), exit_on_usage_error():
        open_dataset(f"folder:{tmp_path}", 8)
    assert r"\udcff.png is not an image" in capsys.readouterr().err
