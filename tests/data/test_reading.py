"""What all data sets share: unreadable images, provenance, labels, batches, many files."""

import logging
import pickle
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

from ssd.commands.errors import UsageError
from ssd.data import open_dataset
from ssd.data.files import FileList, Listing, map_files
from ssd.data.transforms import pixels_to_tensor

from ..conftest import ROOT


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def test_pixels_to_tensor_is_the_formula() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    expected = torch.arange(256).float().div(127.5).sub(1).view(16, 16).expand(3, 16, 16)
    assert torch.equal(pixels_to_tensor(pixels)[0], expected)
    assert pixels_to_tensor(pixels).is_contiguous()


def test_a_batch_is_its_items(image_folder) -> None:
    dataset = open_dataset(f"folder:{image_folder}", 16)
    order = [3, 0, 5, 3]
    for item, index in zip(dataset.__getitems__(order), order):
        assert torch.equal(item["image"], dataset[index]["image"])
    assert len(list(dataset)) == 6  # iteration ends


def test_bad_images_are_replaced_by_the_next(image_folder, caplog) -> None:
    truncate(image_folder / "b.jpg")
    (image_folder / "c.png").write_text("hello")
    dataset = open_dataset(f"folder:{image_folder}", 16, skip_bad_images=True)
    with caplog.at_level(logging.WARNING, "ssd"):
        for _ in range(2):
            assert torch.equal(dataset[1]["image"], dataset[3]["image"])
            assert torch.equal(dataset[2]["image"], dataset[3]["image"])
    assert dataset.bad_images == ["b.jpg", "c.png"]
    assert sum("b.jpg" in record.message for record in caplog.records) == 1
    assert len(dataset) == 6


def test_the_last_bad_image_is_replaced_by_the_first(image_folder) -> None:
    truncate(image_folder / "more" / "f.PNG")
    dataset = open_dataset(f"folder:{image_folder}", 16, skip_bad_images=True)
    assert torch.equal(dataset[5]["image"], dataset[0]["image"])


def test_nothing_readable_is_an_error(tmp_path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("hello")
    dataset = open_dataset(f"folder:{tmp_path}", 16, skip_bad_images=True)
    with pytest.raises(UsageError, match="None of the 2 images"):
        dataset[0]


def test_a_worker_names_the_file_in_one_line(image_folder) -> None:
    truncate(image_folder / "b.jpg")
    with pytest.raises(UsageError) as info:
        open_dataset(f"folder:{image_folder}", 16)[1]
    assert str(info.value).startswith(f"Cannot read the image {image_folder / 'b.jpg'} (")
    assert "\n" not in str(info.value)
    # What a DataLoader does with an exception of a worker process; a real one would take seconds to shut down.
    printed = "".join(traceback.format_exception(info.value))
    rebuilt = type(info.value)(f"Caught UnreadableImage in DataLoader worker process 0.\nOriginal {printed}")
    assert str(rebuilt) == str(info.value)


def test_provenance(image_folder) -> None:
    provenance = open_dataset(f"folder:{image_folder}", 16).provenance
    assert provenance == {
        "spec": f"folder:{image_folder}",
        "preset": "adm",
        "filter": "box halving, then bicubic",
        "background": "white",
        "split": "all",
        "size": 16,
        "count": 6,
        "hash": provenance["hash"],
        "num_classes": None,
    }
    assert open_dataset(f"folder:{image_folder}", 32).provenance["hash"] == provenance["hash"]
    (image_folder / "a.png").rename(image_folder / "g.png")
    assert open_dataset(f"folder:{image_folder}", 16).provenance["hash"] != provenance["hash"]
    digits = open_dataset("digits", 16).provenance
    assert set(digits) == set(provenance)
    assert (digits["count"], digits["num_classes"], digits["preset"]) == (1797, 10, "none")


def test_data_without_splits_say_so(image_folder) -> None:
    assert len(open_dataset(f"folder:{image_folder}", 16, split="all")) == 6
    for spec in (f"folder:{image_folder}", "digits"):
        with pytest.raises(UsageError, match="has no split 'test': use one of train, all"):
            open_dataset(spec, 16, split="test")


def test_the_loader_benchmark_runs(run_command, monkeypatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    short = ("--res", "16", "--num_images", "4", "--batch_size", "2", "--duration", "0.01", "--repeats", "1")
    outcome = run_command("benchmarks/loader.py", *short, "--workers", "[0]")
    assert outcome.code == 0, outcome.err
    for row in ("originals", "prepared", "collate"):
        assert f"\n{row}" in outcome.out


def test_file_lists_keep_names_and_order(image_folder) -> None:
    names = Listing(image_folder).names
    files = pickle.loads(pickle.dumps(FileList(image_folder, names)))
    assert [files.name(index) for index in range(-6, 6)] == 2 * names
    assert list(files) == [image_folder / name for name in names] == sorted(files)
    with pytest.raises(IndexError):
        files[6]
    many = FileList(image_folder, names * 200)
    assert list(map_files(many, lambda file: file.name, "test")) == [file.name for file in many]
