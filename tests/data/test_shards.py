"""WebDataset shards: which member is a picture, which its label, and what is refused."""

import io
import json
import logging
import tarfile

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from ssd.commands.errors import UsageError
from ssd.data import open_dataset

from .made_data import numbers, png, write_tar

pytest.importorskip("webdataset")


@pytest.fixture
def opened(tmp_path):
    """Open one shard of these members."""

    def open_members(files, mode: str = "w", **options):
        write_tar(tmp_path / "x.tar", files, mode)
        return open_dataset(f"wds:{tmp_path}/x.tar", 8, **options)

    return open_members


def labels(stream) -> list[int]:
    return [item["label"] for item in stream]


def picture(number: int, format_name: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number,) * 3).save(file, format_name)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_the_last_part_of_a_name_says_that_it_is_a_picture(opened, mode: str) -> None:
    files = {
        "a.img.jpg": picture(10, "JPEG"),
        "b.JPG": picture(20, "JPEG"),
        "folder.v1/c.tiff": picture(30, "TIFF"),
        "d.bmp": picture(40, "BMP"),
        "img.v1.0001.png": png(50),
        "img.v1.0002.png": png(60),
    }
    assert numbers(opened(files, mode)) == [10, 20, 30, 40, 50, 60]


LABELS = {
    "cls": ({"a.cls": b"3\n", "b.cls": b"5"}, ["3", "5"]),
    "names in cls": ({"a.cls": b"dog", "b.cls": b"cat"}, ["cat", "dog"]),
    "json": ({"a.json": b'{"label": 3}', "b.json": b'{"label": "5"}'}, ["3", "5"]),
    "json class": ({"a.json": b'{"class": "dog"}', "b.json": b'{"class": "cat"}'}, ["cat", "dog"]),
    "json cls": ({"a.json": b'{"cls": 10, "label": null}', "b.json": b'{"cls": 2}'}, ["2", "10"]),
    "txt": ({"a.txt": b"7", "b.txt": b" 7 "}, ["7"]),
    "txt that is a caption": ({"a.cls": b"1", "a.txt": b"9 lives", "b.cls": b"1", "b.txt": b"x"}, ["1"]),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_are_found_and_numbered(opened, case: str) -> None:
    files, names = LABELS[case]
    members = sorted({**files, "a.png": png(1), "b.png": png(2)}.items())
    stream = opened(members, labels=True)
    assert (stream.class_names, stream.num_classes) == (names, len(names))
    own = {"a": 10 if case == "json cls" else 3, "b": 5}
    if case in ("cls", "json"):
        assert labels(stream) == [names.index(str(own["a"])), names.index("5")]
    elif len(names) == 2:
        assert labels(stream) == [1, 0]
    else:
        assert labels(stream) == [0, 0]
    assert stream.provenance["num_classes"] == len(names)
    assert all(set(item) == {"image"} for item in opened(members))  # labels come when they are asked for


def test_a_label_belongs_to_every_picture_whose_name_begins_with_its_own(opened, caplog) -> None:
    files = {"a.cls": b"4", "a.img.jpg": picture(10, "JPEG"), "b.img.jpg": picture(20, "JPEG"), "b.cls": b"6"}
    assert labels(opened(files, labels=True)) == [0, 1]
    with caplog.at_level(logging.WARNING, "ssd"):
        stream = opened({"a.cls": b"4", "a.jpg": picture(10, "JPEG"), "a.seg.png": png(20)}, labels=True)
        assert (numbers(stream), labels(stream)) == ([10, 20], [0, 0])
    assert sum("a.jpg, a.seg.png" in record.message for record in caplog.records) == 1


def test_the_number_of_classes_may_be_given(opened) -> None:
    files = {"a.png": png(1), "a.cls": b"3", "b.png": png(2), "b.cls": b"1"}
    stream = opened(files, labels=True, num_classes=5)
    assert labels(stream) == [3, 1]
    assert stream.class_names == ["0", "1", "2", "3", "4"]
    with pytest.raises(UsageError, match=r"label of b\.png in .* is 1, which is not one of the 1 classes"):
        list(opened({"a.png": png(1), "a.cls": b"0", "b.png": png(2), "b.cls": b"1"}, labels=True, num_classes=1))
    with pytest.raises(UsageError, match=r"a\.png in .* is a name, 'cat': leave out --num_classes"):
        opened({"a.png": png(1), "a.cls": b"cat"}, labels=True, num_classes=5)


def test_partly_labelled_shards(opened) -> None:
    files = {"a.png": png(1), "a.cls": b"3", "b.png": png(2), "c.png": png(3), "c.cls": b"3"}
    batches = list(DataLoader(opened(files), 3))
    assert numbers({"image": image} for image in batches[0]["image"]) == [1, 2, 3]
    with pytest.raises(UsageError, match=r"1 of the 3 pictures of .* have no label, the first is b\.png in .*x\.tar"):
        opened(files, labels=True)
    with pytest.raises(UsageError, match=r"b\.png in .*x\.tar has no label"):
        list(opened(files, labels=True, num_classes=4))
    with pytest.raises(UsageError, match=r"^--class_conditional needs data with labels, but wds:.* has none\.$"):
        opened({"a.png": png(1), "a.txt": b"a caption"}, labels=True)


@pytest.mark.parametrize("content", [b"{", b'{"label": [1]}', b'{"label": -1}', b'{"label": 1.5}', b'{"label": true}'])
def test_labels_that_are_none(opened, content: bytes) -> None:
    files = {"a.png": png(1), "a.json": content}
    assert numbers(opened(files)) == [1]
    with pytest.raises(UsageError, match=r"^The label of a\.png in .*x\.tar ") as error:
        opened(files, labels=True)
    assert "\n" not in str(error.value)


def test_samples_without_a_picture_are_counted(opened, caplog) -> None:
    files = {"a.txt": b"x", "b.png": png(2), "b.cls": b"0", "c.json": b"{}", "d.bin": b"x"}
    with caplog.at_level(logging.WARNING, "ssd"):
        stream = opened(files)
        assert numbers(stream) == numbers(stream) == [2]
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2
    assert "left out, the first is a in " in messages[0]
    assert "3 samples have no picture" in messages[1]
    caplog.clear()
    stream = opened(files, labels=True)
    assert numbers(stream) == [2]
    assert "3 samples have no picture and are left out, the first is a in " in stream.opening_notes[0]
    assert not caplog.records
    for wanted in (False, True):
        with pytest.raises(UsageError, match="has no picture in its 1 shards"):
            opened({"a.txt": b"x", "b.cls": b"0"}, labels=wanted)


def test_hidden_members_and_folders_are_nothing(opened, tmp_path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "._a.png").write_bytes(b"resource fork")
        (tmp_path / "in" / "a.png").write_bytes(png(7))
        tar.add(tmp_path / "in", ".")
    assert numbers(open_dataset(f"wds:{tmp_path}/x.tar", 8)) == [7]


REFUSED = {
    "labels last": ([("a.png", png(1)), ("b.png", png(2)), ("a.cls", b"1"), ("b.cls", b"2")], "not next to each other"),
    "labels first": ([("a.cls", b"1"), ("b.cls", b"2"), ("a.img.png", png(1))], "not next to each other"),
    "label of two": ([("a.x.png", png(1)), ("a.y.png", png(2)), ("a.cls", b"1")], "not next to each other"),
    "twice": ([("a.png", png(1)), ("a.png", png(2))], r"has two members of the name a\.png"),
    "reserved": ([("a.png", png(1)), ("a.__key__", b"x")], r"has a member a\.__key__"),
    "reserved alone": ([("__key__", b"x"), ("a.png", png(1))], "has a member __key__"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_shards_that_would_lose_something_are_refused(opened, case: str) -> None:
    files, message = REFUSED[case]
    for wanted in (False, True):
        with pytest.raises(UsageError, match=message) as error:
            list(opened(files, labels=wanted))
        assert "\n" not in str(error.value)


def test_links_in_shards_are_refused(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "b.png").symlink_to("a.png")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.png", "b.png"):
            tar.add(tmp_path / name, name)
    with pytest.raises(UsageError, match=r"b\.png in .* is not a file but a link"):
        list(open_dataset(f"wds:{tmp_path}/x.tar", 8))


@pytest.mark.parametrize("damage", ["cut between members", "cut in a header", "zeros lost", "noise"])
def test_damage_between_members_is_noticed(tmp_path, damage: str) -> None:
    """Python's tarfile takes each of these for the end of the archive."""
    write_tar(tmp_path / "x.tar", {f"{n}.png": png(n) for n in range(4)})
    content = (tmp_path / "x.tar").read_bytes()
    member = 1024  # a header and one block
    content = {
        "cut between members": content[: 2 * member],
        "cut in a header": content[: 2 * member + 100],
        "zeros lost": content[: 4 * member],
        "noise": content[:member] + b"\x55" * 512 + content[member + 512 :],
    }[damage]
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(UsageError, match=r"Cannot read the shard .*x\.tar \(.* after \d+ bytes\)"):
        list(open_dataset(f"wds:{tmp_path}/x.tar", 8))


@pytest.mark.parametrize("pattern", ["{0..1000000}", "{0..99999999999999999999}", "{0..9999}{0..9999}", "{1..0x}{"])
def test_absurd_patterns_are_refused_at_once(tmp_path, pattern: str) -> None:
    with pytest.raises(UsageError, match=r"more than 1,000,000 shards|close every brace") as error:
        open_dataset(f"wds:{tmp_path}/{pattern}.tar", 8)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scheme", ["pipe", "PIPE"])
def test_commands_run_only_when_they_are_allowed(tmp_path, scheme: str) -> None:
    write_tar(tmp_path / "x.tar", {"a.png": png(1), "a.cls": b"2", "b.png": png(3), "b.cls": b"4"})
    spec = f"wds:{scheme}:touch {tmp_path}/ran; cat {tmp_path}/x.tar"
    with pytest.raises(UsageError, match=r"would run a shell command .* add --allow_pipe"):
        open_dataset(spec, 8)
    assert not (tmp_path / "ran").exists()
    stream = open_dataset(spec, 8, labels=True, allow_pipe=True)
    assert (numbers(stream), labels(stream)) == ([1, 3], [0, 1])
    assert (tmp_path / "ran").exists()
    with pytest.raises(UsageError, match="Cannot read the shard pipe:false"):
        open_dataset("wds:pipe:false", 8, allow_pipe=True)


def test_a_file_address_is_a_local_shard(tmp_path) -> None:
    write_tar(tmp_path / "x.tar", {"a.png": png(1), "a.json": json.dumps({"label": 0}).encode()})
    stream = open_dataset(f"wds:file://{tmp_path}/x.tar", 8, labels=True)
    assert (numbers(stream), labels(stream)) == ([1], [0])
    with pytest.raises(UsageError, match="do not exist"):
        open_dataset(f"wds:file://{tmp_path}/y.tar", 8)
    with pytest.raises(UsageError, match=r"ftp2://x/y\.tar cannot be opened"):
        open_dataset("wds:ftp2://x/y.tar", 8)
