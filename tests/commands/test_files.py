"""Files and folders that appear whole or not at all."""

import json

import pytest

from ssd.commands.files import remove_leftovers, whole_file, whole_folder, write_json, write_text


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_appears_whole_with_its_folder(tmp_path, sync: bool) -> None:
    path = tmp_path / "new" / "a.png"
    with whole_file(path, sync) as temporary:
        temporary.write_bytes(b"half")
        assert temporary.suffix == ".png"  # from which writers choose the format
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert list(path.parent.iterdir()) == [path]


def test_an_exception_leaves_the_earlier_file(tmp_path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "earlier")

    def interrupted() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_the_earlier_one(tmp_path) -> None:
    path = tmp_path / "model"
    for name in ("one", "two"):
        with whole_folder(path) as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / name).write_text(name)
    assert [file.name for file in path.rglob("*") if file.is_file()] == ["two"]

    def full() -> None:
        with whole_folder(path) as temporary:
            (temporary / "three").write_text("3")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        full()
    assert [file.name for file in path.rglob("*") if file.is_file()] == ["two"]
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_and_json_is_readable(tmp_path) -> None:
    write_text(tmp_path / "a", "Grüße 你好")
    assert (tmp_path / "a").read_bytes().decode("utf-8") == "Grüße 你好"
    write_json(tmp_path / "b", {"x": [1, 2]})
    assert json.loads((tmp_path / "b").read_text()) == {"x": [1, 2]}
    assert (tmp_path / "b").read_text().endswith("\n")


def test_what_a_killed_process_left_is_removed(tmp_path) -> None:
    (tmp_path / ".part-1-a.txt").write_text("half")
    (tmp_path / ".part-2-model").mkdir()
    (tmp_path / ".part-2-model" / "x").write_text("half")
    (tmp_path / "mine.part").write_text("whole")
    remove_leftovers(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.part"]
