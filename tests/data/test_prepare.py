"""Prepared copies: the same images as the original, however often the work was interrupted."""

import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssd.commands.errors import UsageError
from ssd.commands.lock import hold_folder
from ssd.data import open_dataset
from ssd.data import prepare as command
from ssd.data.prepared.copying import JOURNAL, write_copy
from ssd.data.readers.npz import NpzImages

from ..conftest import Outcome


@pytest.fixture
def prepare(capsys):
    """Run the command with these arguments, in this process."""

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        try:
            command.main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def archive(tmp_path) -> str:
    """150 labelled pictures of 20 x 24 pixels, a little more than two blocks."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (150, 20, 24, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(150) % 7)
    return f"npz:{tmp_path / 'x.npz'}"


class SlowImages(NpzImages):
    """Takes so long that it can be stopped in the middle."""

    def pixels(self, index: int) -> np.ndarray:
        time.sleep(0.01)
        return super().pixels(index)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_same_images(copy, original) -> None:
    assert len(copy) == len(original)
    for index in range(len(original)):
        ours, theirs = copy[index], original[index]
        assert torch.equal(ours.pop("image"), theirs.pop("image"))
        assert ours == theirs


def test_a_copy_holds_the_same_images_and_labels(prepare, archive, tmp_path) -> None:
    out = tmp_path / "copy"
    outcome = prepare(archive, "--res", "16", "--out", out, "--workers", "1")
    assert outcome.code == 0
    assert "150 images of 16 x 16" in outcome.out
    copy, original = open_dataset(f"prepared:{out}", 16), open_dataset(archive, 16)
    assert_same_images(copy, original)
    assert copy.num_classes == 7
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["hash"] == copy.provenance["hash"]
    assert manifest["labels"] == "labels.npy"
    assert copy.provenance == original.provenance | {"hash": manifest["hash"]}


def test_the_number_of_workers_changes_nothing(archive, tmp_path) -> None:
    original = open_dataset(archive, 16)
    one, _ = write_copy(original, tmp_path / "one", workers=1)
    two, _ = write_copy(original, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert one == two


def test_a_copy_as_it_was_before_there_was_a_preview(archive, tmp_path) -> None:
    """The hash, and files of the first version of the format, are still understood."""
    original, out = open_dataset(archive, 16), tmp_path / "copy"
    manifest, _ = write_copy(original, out)
    (out / "preview.png").unlink()
    digest = hashlib.sha256(b"".join(hashlib.sha256(original.pixels(i).tobytes()).digest() for i in range(150)))
    digest.update(original.labels.astype("<i8").tobytes())
    assert open_dataset(f"prepared:{out}", 16).provenance["hash"] == digest.hexdigest() == manifest.hash
    assert set(json.loads((out / "manifest.json").read_text())) == {
        *("spec", "preset", "filter", "split", "size", "count", "num_classes", "source_hash", "format"),
        *("skip_bad_images", "version", "hash", "labels", "bad_images", "pillow", "background", "conversions"),
        "class_names",
    }


def test_the_preview_is_a_grid_of_the_first_images(archive, tmp_path) -> None:
    original = open_dataset(archive, 16)
    write_copy(original, tmp_path / "copy")
    grid = np.asarray(Image.open(tmp_path / "copy" / "preview.png"))
    assert grid.shape == (8 * 66 + 2, 8 * 66 + 2, 3)  # 16 pixels enlarged to 64, two between neighbours
    for index in (0, 9, 63):
        top, left = (2 + 66 * place for place in divmod(index, 8))
        assert np.array_equal(grid[top : top + 64 : 4, left : left + 64 : 4], original.pixels(index))
    large = open_dataset(archive, 300)
    write_copy(large, tmp_path / "large")
    assert max(Image.open(tmp_path / "large" / "preview.png").size) == 2048


def test_only_what_is_missing_is_made_again(archive, tmp_path) -> None:
    original, out = open_dataset(archive, 16), tmp_path / "copy"
    whole, made = write_copy(original, out)
    assert made == 150
    before = contents(out)
    assert write_copy(original, out) == (whole, 0)

    (out / "manifest.json").unlink()
    pixels = np.load(out / "images.npy", mmap_mode="r+")
    pixels[[3, 70, 149]] = 0
    pixels.flush()
    (out / ".part-123-images.npy").write_bytes(b"left by a killed process")
    again, made = write_copy(original, out)
    assert made == 3
    assert again == whole
    assert contents(out) == before


@pytest.mark.parametrize("left", [(), ("settings.json",), ("settings.json", "images.npy")])
def test_a_run_that_was_killed_while_it_made_room_continues(archive, tmp_path, left: tuple[str, ...]) -> None:
    original, out = open_dataset(archive, 16), tmp_path / "copy"
    write_copy(original, out)
    before = contents(out)
    for file in out.iterdir():
        if file.name not in left:
            file.unlink()
    (out / ".part-123-settings.json").write_text("{")
    assert write_copy(original, out)[1] == 150
    assert contents(out) == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_run_continues(archive, tmp_path) -> None:
    original, out = open_dataset(archive, 16), tmp_path / "copy"
    slow = SlowImages(original.request)
    child = multiprocessing.get_context("fork").Process(target=write_copy, args=(slow, out, 2))
    child.start()
    while not ((out / JOURNAL).exists() and np.load(out / JOURNAL)["digest"].any()):
        time.sleep(0.001)
    workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    deadline = time.time() + 5
    while any(Path(f"/proc/{worker}/fd").exists() and os.listdir(f"/proc/{worker}/fd") for worker in workers):
        assert time.time() < deadline, "worker processes outlive their parent"
        time.sleep(0.01)

    assert not (out / "manifest.json").exists()
    with pytest.raises(UsageError, match="not finished"):
        open_dataset(f"prepared:{out}", 16)
    manifest, made = write_copy(original, out)
    assert 0 < made < 150
    assert manifest == write_copy(original, tmp_path / "uninterrupted")[0]
    assert contents(out) == contents(tmp_path / "uninterrupted")


def test_unreadable_originals(prepare, image_folder, tmp_path) -> None:
    file = image_folder / "b.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    arguments = (f"folder:{image_folder}", "--res", "16", "--out", tmp_path / "copy", "--workers")
    for workers in ("1", "2"):
        outcome = prepare(*arguments, workers)
        assert outcome.code == 2
        last = outcome.err.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert str(file) in last
    outcome = prepare(*arguments, "2", "--skip_bad_images", "true")
    assert outcome.code == 2  # the same folder, other settings
    assert "another skip_bad_images" in outcome.err
    outcome = prepare(*arguments[:4], tmp_path / "other", "--workers", "2", "--skip_bad_images", "true")
    assert outcome.code == 0
    assert "1 unreadable images were replaced, all in manifest.json: b.jpg" in outcome.out
    copy = open_dataset(f"prepared:{tmp_path / 'other'}", 16)
    assert copy.manifest.bad_images == ["b.jpg"]
    assert_same_images(copy, open_dataset(f"folder:{image_folder}", 16, skip_bad_images=True))


def test_copies_are_not_overwritten(prepare, archive, tmp_path) -> None:
    out = tmp_path / "copy"
    prepare(archive, "--res", "16", "--out", out, "--workers", "1")
    prepare(archive, "--res", "8", "--out", out).assert_one_line_error("another size (16, not 8)", "--out")
    prepare(archive, "--res", "8", "--out", tmp_path).assert_one_line_error("is not empty and is not a prepared copy")
    prepare(archive, "--res", "0", "--out", out).assert_one_line_error("at least 1")
    prepare("digits", "--out", tmp_path / "d").assert_one_line_error("digits cannot be prepared")
    prepare(f"prepared:{out}", "--res", "16", "--out", tmp_path / "d").assert_one_line_error("cannot be prepared")
    prepare("folder:nowhere", "--out", tmp_path / "d").assert_one_line_error("does not exist")
    assert not (tmp_path / "d").exists()


def test_flags_by_their_former_names(prepare, archive, tmp_path) -> None:
    outcome = prepare(archive, "--size", "16", "--preset", "adm", "--out", tmp_path / "copy", "--workers", "1")
    assert outcome.code == 0
    assert "note: --size is now called --res." in outcome.err
    assert "note: --preset is now called --crop_preset." in outcome.err
    assert len(open_dataset(f"prepared:{tmp_path / 'copy'}", 16)) == 150


def test_a_copy_of_png_files_is_refused(prepare, archive, tmp_path) -> None:
    """Earlier versions made them; what is in their folder of images can be read as any pictures."""
    out = tmp_path / "copy"
    write_copy(open_dataset(archive, 16), out)
    for name in ("manifest.json", "settings.json"):
        (out / name).write_text((out / name).read_text().replace('"packed"', '"png"'))
    (out / "images").mkdir()
    Image.new("RGB", (16, 16)).save(out / "images" / "00000000.png")
    with pytest.raises(UsageError, match=rf"is a copy of PNG files.* prepare .* again .*folder:{out}/images") as error:
        open_dataset(f"prepared:{out}", 16)
    assert "\n" not in str(error.value)
    prepare(archive, "--res", "16", "--out", out).assert_one_line_error("is a copy of PNG files")
    assert len(open_dataset(f"folder:{out}/images", 16)) == 1


def test_reading_a_copy_checks_what_it_is(archive, tmp_path) -> None:
    out = tmp_path / "copy"
    write_copy(open_dataset(archive, 16), out)
    for arguments, message in (
        ({"size": 32}, "images of 16 x 16, but 32 x 32"),
        ({"size": 16, "preset": "sde140"}, "the preset adm, but sde140"),
        ({"size": 16, "split": "test"}, "the split all, but test"),
    ):
        with pytest.raises(UsageError, match=message):
            open_dataset(f"prepared:{out}", **arguments)
    with pytest.raises(UsageError, match=f"use prepared:{out}"):
        open_dataset(f"folder:{out}", 16)
    with pytest.raises(UsageError, match=r"has no manifest\.json"):
        open_dataset(f"prepared:{tmp_path}", 16)
    file = out / "images.npy"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"images\.npy cannot be read"):
        open_dataset(f"prepared:{out}", 16)
    (out / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="not written by this version"):
        open_dataset(f"prepared:{out}", 16)


def test_copies_are_read_by_worker_processes(archive, tmp_path) -> None:
    write_copy(open_dataset(archive, 16), tmp_path / "copy")
    copy = open_dataset(f"prepared:{tmp_path / 'copy'}", 16)
    assert len(pickle.dumps(copy.store)) < 1000  # nothing mapped travels to a spawned process
    batches = torch.utils.data.DataLoader(copy, 32, num_workers=2)
    images = torch.cat([batch["image"] for batch in batches])
    assert torch.equal(images, torch.stack([item["image"] for item in copy]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": -1}, "count -1"),
        ({"count": "many"}, "count"),
        ({"size": 1.5}, "size"),
        ({"labels": "../../labels.npy"}, "labels '../../labels.npy'"),
        ({"num_classes": 0}, "num_classes 0"),
        ({"class_names": ["a"]}, "1 class_names for 7 classes"),
        ({"class_names": 3}, "class_names"),
        ({"bad_images": "x"}, "bad_images"),
        ({"conversions": [1]}, "conversions"),
    ],
)
def test_a_damaged_manifest_is_one_line(prepare, archive, tmp_path, change: dict, message: str) -> None:
    out = tmp_path / "copy"
    assert prepare(archive, "--res", "16", "--out", out, "--workers", "1").code == 0
    path = out / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match=r"manifest\.json is damaged") as caught:
        open_dataset(f"prepared:{out}", 16)
    assert message in str(caught.value)


def test_a_copy_has_one_writer(prepare, archive, tmp_path) -> None:
    out = tmp_path / "copy"
    with hold_folder(out):
        refused = prepare(archive, "--res", "16", "--out", out, "--workers", "1")
    refused.assert_one_line_error(f"process {os.getpid()}", "give another folder")
    assert prepare(archive, "--res", "16", "--out", out, "--workers", "1").code == 0
    assert not (out / ".lock").exists()
