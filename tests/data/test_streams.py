"""Hugging Face data sets and WebDataset shards, made locally; division over processes and workers."""

import io
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ssd.commands.errors import UsageError
from ssd.data import open_dataset

from .made_data import numbers, png, write_tar

SHARDS, PER_SHARD = 4, 5
TOTAL = SHARDS * PER_SHARD


@pytest.fixture
def shards(tmp_path) -> str:
    pytest.importorskip("webdataset")
    for shard in range(SHARDS):
        files = {}
        for number in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
            files |= {f"{number:04d}.png": png(number), f"{number:04d}.cls": str(number % 3).encode()}
        write_tar(tmp_path / f"part-{shard:02d}.tar", files)
    return f"wds:{tmp_path}/part-{{00..{SHARDS - 1:02d}}}.tar"


@pytest.fixture
def hub_folder(tmp_path, monkeypatch) -> Path:
    """A data set in parquet files, as the Hub keeps them."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b", "c"])})
    folder = tmp_path / "data"
    for shard in range(SHARDS):
        own = range(shard * PER_SHARD, (shard + 1) * PER_SHARD)
        rows = {"img": [{"bytes": png(n), "path": None} for n in own], "kind": [n % 3 for n in own]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(
            folder / f"train-{shard:05d}-of-{SHARDS:05d}.parquet"
        )
    return folder


@pytest.fixture(params=["wds", "hub-stream"])
def stream(request) -> object:
    """The same 20 images in 4 shards as a stream of either kind."""
    if request.param == "wds":
        return open_dataset(request.getfixturevalue("shards"), 8, labels=True)
    return open_dataset(f"hub-stream:{request.getfixturevalue('hub_folder')}", 8, labels=True)


def test_a_stream_is_one_pass_in_order(stream) -> None:
    items = list(stream)
    assert numbers(items) == list(range(TOTAL))
    assert [item["label"] for item in items] == [number % 3 for number in range(TOTAL)]
    assert items[0]["image"].shape == (3, 8, 8)
    assert stream.provenance["split"] in ("all", "train")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 2, 5])  # 5: more than shards
def test_one_pass_is_divided_without_overlap(stream, workers: int) -> None:
    images = torch.cat([batch["image"] for batch in DataLoader(stream, 2, num_workers=workers)])
    assert sorted(numbers({"image": image} for image in images)) == list(range(TOTAL))


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_training_sees_everything_equally_often(stream, world_size: int) -> None:
    counts: Counter[int] = Counter()
    for rank in range(world_size):
        stream.set_position(0, rank, world_size, seed=1)
        counts += Counter(numbers(islice(stream, 3 * TOTAL // world_size)))
    assert set(counts) == set(range(TOTAL))
    if world_size <= 2:  # more parts than shards count their rows without regard to the pass
        assert set(counts.values()) == {3}


def test_order_depends_on_seed_and_position_alone(stream) -> None:
    def order(first_sample: int, seed: int) -> list[int]:
        stream.set_position(first_sample, seed=seed)
        return numbers(islice(stream, 2 * TOTAL))

    assert order(0, 0) == order(0, 0)
    assert order(0, 0)[:TOTAL] != list(range(TOTAL))
    assert order(0, 0)[:TOTAL] != order(0, 0)[TOTAL:]
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(64, 0)


def test_workers_of_an_endless_stream_see_different_images(stream) -> None:
    stream.set_position(0)
    batches = list(islice(DataLoader(stream, PER_SHARD, num_workers=2), SHARDS))
    seen = [n for batch in batches for n in numbers({"image": image} for image in batch["image"])]
    assert sorted(seen) == list(range(TOTAL))


def test_more_parts_than_images_is_an_error(stream) -> None:
    stream.set_position(0, rank=TOTAL, world_size=TOTAL + 1)
    with pytest.raises(UsageError, match="no image for part 21 of 21"):
        next(iter(stream))


def test_wds_bad_images(tmp_path, caplog) -> None:
    pytest.importorskip("webdataset")
    write_tar(tmp_path / "x.tar", {"a.png": png(1), "b.png": png(2)[:40], "c.png": png(3)})
    stream = open_dataset(f"wds:{tmp_path}/x.tar", 8)
    with pytest.raises(UsageError, match=rf"^b\.png in {tmp_path}/x\.tar is not an image"):
        list(stream)
    stream = open_dataset(f"wds:{tmp_path}/x.tar", 8, skip_bad_images=True)
    for _ in range(2):
        assert numbers(stream) == [1, 3]
    assert stream.bad_images == [f"b.png in {tmp_path}/x.tar"]
    assert sum("b.png in" in record.message for record in caplog.records) == 1


def test_wds_damaged_and_missing_shards(shards, tmp_path) -> None:
    (tmp_path / "part-01.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(UsageError, match=r"Cannot read the shard .*part-01\.tar"):
        list(open_dataset(shards, 8))
    assert len(list(open_dataset(shards, 8, skip_bad_images=True))) == TOTAL - PER_SHARD
    labelled = open_dataset(shards, 8, skip_bad_images=True, labels=True)
    assert [item["label"] for item in labelled] == [n % 3 for n in range(TOTAL) if n // PER_SHARD != 1]
    assert labelled.bad_images == ["shard 1"]
    before = open_dataset(shards, 8).provenance["hash"]
    (tmp_path / "part-02.tar").write_bytes(b"")
    assert open_dataset(shards, 8).provenance["hash"] != before
    (tmp_path / "part-02.tar").unlink()
    with pytest.raises(UsageError, match=r"1 of the 4 shards .* do not exist, the first is .*part-02\.tar"):
        open_dataset(shards, 8)


def test_hub_on_disk(hub_folder) -> None:
    dataset = open_dataset(f"hub:{hub_folder}", 8)
    assert numbers(dataset) == list(range(TOTAL))
    assert [item["label"] for item in dataset] == [number % 3 for number in range(TOTAL)]
    assert (dataset.num_classes, dataset.provenance["count"]) == (3, TOTAL)
    assert dataset.provenance["hash"] == open_dataset(f"hub:{hub_folder}", 8).provenance["hash"]
    images = torch.cat([batch["image"] for batch in DataLoader(dataset, 4, num_workers=1)])
    assert numbers({"image": image} for image in images) == list(range(TOTAL))
    for kind in ("hub", "hub-stream"):
        with pytest.raises(UsageError, match=r"Cannot open hub.* with split 'nothing'") as error:
            open_dataset(f"{kind}:{hub_folder}", 8, split="nothing")
        assert "\n" not in str(error.value)


def test_hub_columns(tmp_path, monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.Dataset.from_dict({"text": ["x"]}).to_parquet(tmp_path / "data" / "train.parquet")
    with pytest.raises(UsageError, match=r"one column of type Image.*\['text'\]"):
        open_dataset(f"hub:{tmp_path / 'data'}", 8)
    features = datasets.Features({"image": datasets.Image()})
    rows = [{"bytes": data, "path": None} for data in (png(1), b"broken", png(3))]
    datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(tmp_path / "more" / "train.parquet")
    dataset = open_dataset(f"hub:{tmp_path / 'more'}", 8)
    assert set(dataset[0]) == {"image"}
    with pytest.raises(UsageError, match=r"train\[1\] of hub:.* is not an image"):
        dataset[1]
    assert numbers(open_dataset(f"hub:{tmp_path / 'more'}", 8, skip_bad_images=True)) == [1, 3, 3]
    assert numbers(open_dataset(f"hub-stream:{tmp_path / 'more'}", 8, skip_bad_images=True)) == [1, 3]


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """A data set in one parquet file: four pictures and these columns."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()

    def write(**columns):
        """Each is (type, values)."""
        folder = tmp_path / "_".join(["rows", *columns])
        features = {"image": datasets.Image(), **{name: kind for name, (kind, _) in columns.items()}}
        values = {name: content for name, (_, content) in columns.items()}
        values.setdefault("image", [{"bytes": png(n), "path": None} for n in range(4)])
        made = datasets.Dataset.from_dict(values, features=datasets.Features(features))
        made.to_parquet(folder / "train.parquet")
        return folder

    return write


@pytest.mark.parametrize("kind", ["hub", "hub-stream"])
def test_integer_and_string_columns_may_hold_labels(rows, kind: str) -> None:
    datasets = pytest.importorskip("datasets")
    number, text = datasets.Value("int32"), datasets.Value("string")
    folder = rows(label=(number, [7, 3, 7, 9]), kind=(text, ["dog", "cat", "cat", "dog"]))
    dataset = open_dataset(f"{kind}:{folder}", 8, labels=True)
    assert [item["label"] for item in dataset] == [1, 0, 1, 2]
    assert dataset.class_names == ["3", "7", "9"]
    dataset = open_dataset(f"{kind}:{folder}", 8, labels=True, label_column="kind")
    assert [item["label"] for item in dataset] == [1, 0, 0, 1]
    assert dataset.class_names == ["cat", "dog"]
    with pytest.raises(UsageError, match="has no column of labels 'image': use one of label, kind"):
        open_dataset(f"{kind}:{folder}", 8, label_column="image")
    if kind == "hub-stream":
        stream = open_dataset(f"{kind}:{folder}", 8, labels=True, num_classes=10)
        assert [item["label"] for item in stream] == [7, 3, 7, 9]
        with pytest.raises(UsageError, match=r"label of train\[shard 0, 3\] of .* is 9, not one of the classes"):
            list(open_dataset(f"{kind}:{folder}", 8, labels=True, num_classes=8))


@pytest.mark.parametrize("kind", ["hub", "hub-stream"])
def test_several_columns_of_labels(rows, kind: str) -> None:
    datasets = pytest.importorskip("datasets")
    fine = datasets.ClassLabel(names=["a", "b", "c", "d", "e"])
    coarse = datasets.ClassLabel(names=["x", "y"])
    folder = rows(fine_label=(fine, [4, 2, 0, 4]), coarse_label=(coarse, [1, 1, 0, 1]))
    assert set(next(iter(open_dataset(f"{kind}:{folder}", 8)))) == {"image"}
    with pytest.raises(UsageError, match="choose --label_column among fine_label, coarse_label"):
        open_dataset(f"{kind}:{folder}", 8, labels=True)
    dataset = open_dataset(f"{kind}:{folder}", 8, labels=True, label_column="coarse_label")
    assert ([item["label"] for item in dataset], dataset.class_names) == ([1, 1, 0, 1], ["x", "y"])
    dataset = open_dataset(f"{kind}:{folder}", 8, labels=True, label_column="fine_label")
    if kind == "hub":
        assert ([item["label"] for item in dataset], dataset.class_names) == ([2, 1, 0, 2], ["a", "c", "e"])
        assert "classes b, d have no image; 5 classes were asked for" in dataset.opening_notes[0]
    else:
        assert dataset.class_names == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("kind", ["hub", "hub-stream"])
def test_withheld_labels_and_missing_pictures(rows, kind: str) -> None:
    datasets = pytest.importorskip("datasets")
    pictures = [{"bytes": png(1), "path": None}, None, {"bytes": png(4), "path": None}, None]
    folder = rows(label=(datasets.ClassLabel(names=["a", "b"]), [1, 0, None, -1]), image=(datasets.Image(), pictures))
    dataset = open_dataset(f"{kind}:{folder}", 8, skip_bad_images=True)
    assert numbers(dataset) == ([1, 4, 4, 1] if kind == "hub" else [1, 4])
    assert len(dataset.bad_images) == 2
    with pytest.raises(UsageError, match=r"Cannot read the image train\[.*1\] of .*\(the row has no picture\)"):
        list(open_dataset(f"{kind}:{folder}", 8))
    with pytest.raises(UsageError, match=r"train\[.*2\] of .* has no label"):
        list(open_dataset(f"{kind}:{folder}", 8, skip_bad_images=True, labels=True))


@pytest.mark.parametrize("kind", ["hub", "hub-stream"])
def test_paths_are_not_names_of_the_hub(tmp_path, image_folder, monkeypatch, kind: str) -> None:
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    for name in (str(image_folder), "images", "./images"):
        with pytest.raises(UsageError, match=f"use folder:{name} for a folder of images"):
            open_dataset(f"{kind}:{name}", 8)
    for name in ("../images", "a/../../b", ".."):
        with pytest.raises(UsageError, match=r"must not have '\.\.' in its name"):
            open_dataset(f"{kind}:{name}", 8)
    with pytest.raises(UsageError, match="is not there"):
        open_dataset(f"{kind}:{tmp_path}/nothing", 8)


@pytest.mark.parametrize(
    ("spec", "package"),
    [("hub:cifar10", "datasets"), ("hub-stream:cifar10", "datasets"), ("wds:x.tar", "webdataset")],
)
def test_missing_packages_are_named(monkeypatch, spec: str, package: str) -> None:
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"needs the package {package}: pip install {package}"):
        open_dataset(spec, 8)


def test_arrays_of_one_colour_survive() -> None:
    """The helper of these tests: a number goes through PNG and [-1, 1] and back."""
    pixels = np.array(Image.open(io.BytesIO(png(77))))
    assert numbers([{"image": torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1}]) == [77]
