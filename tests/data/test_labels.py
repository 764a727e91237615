"""Classes are numbered without gaps and keep their names, in every kind of data."""

import json

import numpy as np
import pytest

from ssd.commands.errors import UsageError
from ssd.data import open_dataset
from ssd.data.labels import MAX_CLASSES, number_classes
from ssd.data.prepared.copying import write_copy

IMAGES = np.zeros((6, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def archive(tmp_path):
    """An npz file with these labels."""

    def write(labels, **options):
        images = np.zeros((len(labels), 8, 8, 3), dtype=np.uint8)
        np.savez(tmp_path / "x.npz", images=images, labels=labels)
        return open_dataset(f"npz:{tmp_path / 'x.npz'}", 8, **options)

    return write


def test_labels_of_an_archive(archive, tmp_path) -> None:
    dataset = archive(np.array([2, 0, 4]))
    assert [item["label"] for item in dataset] == [1, 0, 2]
    assert (dataset.num_classes, dataset.class_names) == (3, ["0", "2", "4"])
    assert dataset.opening_notes == [
        f"npz:{tmp_path}/x.npz: classes 1, 3 have no image; 5 classes were asked for. The 3 others are numbered 0-2."
    ]
    for labels in (np.array([[1], [2], [3]]), np.array([0.5, 1, 2]), np.array([-1, 0, 1])):
        with pytest.raises(UsageError, match=r"'labels' in .* must be integers >= 0"):
            archive(labels)


def test_labels_from_one_are_as_many_classes(archive) -> None:
    dataset = archive(np.arange(1, 7))
    assert dataset.class_names == ["1", "2", "3", "4", "5", "6"]
    assert "class 0 has no image; 7 classes were asked for" in dataset.opening_notes[0]
    assert archive(np.arange(6)).opening_notes == []


def test_classes_that_were_asked_for(archive) -> None:
    labels = np.array([0, 5, 5])
    assert (
        "classes 1-4, 6-9 have no image; 10 classes were asked for" in archive(labels, num_classes=10).opening_notes[0]
    )
    with pytest.raises(UsageError, match="has 2 classes, more than --num_classes 1"):
        archive(labels, num_classes=1)
    with pytest.raises(UsageError, match="must be at least 1, got 0"):
        archive(labels, num_classes=0)
    with pytest.raises(UsageError, match="has 10 classes, more than --num_classes 7"):
        open_dataset("digits", 8, num_classes=7)


@pytest.mark.parametrize("label", [MAX_CLASSES, 2**40, 2**64 - 1])
def test_absurd_labels_are_refused(archive, label: int) -> None:
    with pytest.raises(UsageError, match="at most 1,000,000 are allowed"):
        archive(np.array([0, label], dtype=np.uint64))
    assert archive(np.array([0, MAX_CLASSES - 1])).num_classes == 2


def test_names_are_numbered_in_sorted_order() -> None:
    classes = number_classes(["dog", "cat", "10", "9"], "x")
    assert classes.names == ["10", "9", "cat", "dog"]
    assert number_classes([9, 10, "cat"], "x").names == ["9", "10", "cat"]
    assert "2 classes have images; 3 classes" in number_classes(["a", "b"], "x", asked=3).notes[0]
    named = number_classes([0, 2], "x", names=["a", "b", "c"])
    assert named.names == ["a", "c"]
    assert "x: class b has no image; 3 classes were asked for" in named.notes[0]
    with pytest.raises(UsageError, match="label 3, but names for 3 classes"):
        number_classes([3], "x", names=["a", "b", "c"])


def test_a_copy_keeps_the_names(archive, tmp_path) -> None:
    original = archive(np.array([1, 6, 6, 3]))
    write_copy(original, tmp_path / "copy")
    copy = open_dataset(f"prepared:{tmp_path / 'copy'}", 8, labels=True)
    assert copy.class_names == ["1", "3", "6"]
    assert [item["label"] for item in copy] == [0, 2, 2, 1]
    assert copy.opening_notes == []


def test_gaps_in_an_earlier_copy_are_closed(archive, tmp_path) -> None:
    write_copy(archive(np.array([0, 1, 2])), tmp_path / "copy")
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    del manifest["class_names"]
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps(manifest))
    np.save(tmp_path / "copy" / "labels.npy", np.array([4, 4, 1]))
    copy = open_dataset(f"prepared:{tmp_path / 'copy'}", 8)
    assert copy.class_names == ["1", "4"]
    assert [item["label"] for item in copy] == [1, 1, 0]


def test_wanted_labels_must_be_there(tmp_path, image_folder) -> None:
    assert open_dataset("digits", 8, labels=True).class_names == [str(n) for n in range(10)]
    np.savez(tmp_path / "x.npz", images=IMAGES)
    for spec in (f"folder:{image_folder}", f"npz:{tmp_path / 'x.npz'}"):
        with pytest.raises(UsageError, match=f"^--class_conditional needs data with labels, but {spec} has none"):
            open_dataset(spec, 8, labels=True)
    with pytest.raises(UsageError, match="--label_column is for hub:NAME"):
        open_dataset("digits", 8, label_column="label")


@pytest.mark.parametrize("labelled", [True, False])
def test_arrays_of_guided_diffusion(tmp_path, labelled: bool) -> None:
    """`np.savez(path, images, labels)`, which names them arr_0 and arr_1."""
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    np.savez(tmp_path / "x.npz", images, *([np.array([7, 5])] if labelled else []))
    dataset = open_dataset(f"npz:{tmp_path / 'x.npz'}", 8)
    assert np.array_equal(dataset.pixels(1), images[1])
    assert dataset.class_names == (["5", "7"] if labelled else None)
    np.savez(tmp_path / "x.npz", images, np.zeros((2, 3)))
    with pytest.raises(UsageError, match=r"'arr_1' in .* must be integers"):
        open_dataset(f"npz:{tmp_path / 'x.npz'}", 8)


def test_one_array_of_images(tmp_path) -> None:
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    np.save(tmp_path / "x.npy", images)
    dataset = open_dataset(f"npz:{tmp_path / 'x.npy'}", 8)
    assert np.array_equal(dataset.pixels(1), images[1])
    np.save(tmp_path / "x.npy", images.astype(float))
    with pytest.raises(UsageError, match=r"must be uint8 of shape .*, got float64 \(2, 8, 8, 3\)"):
        open_dataset(f"npz:{tmp_path / 'x.npy'}", 8)
