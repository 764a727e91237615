"""The parser that all commands share."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ssd.commands.parser import CommandParser


@dataclass
class Settings:
    """Settings of a command.

    Parameters
    ----------
    num_images : int
        How many images.
    dry_run : bool
        Whether to stop early.
    sizes : list of int, optional
        The sizes.
    res : int or list of int
        The size.
    workers : int, optional
        How many processes.
    """

    num_images: int = 1
    dry_run: bool = False
    sizes: list[int] | None = None
    res: int | list[int] = 64
    workers: int | None = None


def parse(*arguments: str) -> Settings:
    parser = CommandParser(prog="command", renamed={"count": "num_images"})
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Settings)
    settings = parser.parse_args(list(arguments))
    settings.pop("config")
    return Settings(**settings.as_dict())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], False),
        (["--dry_run"], True),
        (["--dry-run"], True),
        (["--dry_run", "true"], True),
        (["--dry_run=false"], False),
        (["--dry_run", "--num_images", "2"], True),
    ],
)
def test_switches(arguments: list[str], expected: bool) -> None:
    assert parse(*arguments).dry_run is expected


def test_dashes_and_earlier_names(capsys) -> None:
    assert parse("--num-images", "3").num_images == parse("--num_images=3").num_images == 3
    assert capsys.readouterr().err == ""
    assert parse("--count", "4").num_images == 4
    assert capsys.readouterr().err == "note: --count is now called --num_images.\n"
    assert parse("--sizes", "[-1,2]").sizes == [-1, 2]
    assert [parse("--res", given).res for given in ("8", "[8, 4]")] == [8, [8, 4]]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--num_image", "3"], ["--num_image", "Did you mean 'num_images'?"]),
        (["--num_images", "many"], ["num_images", "many"]),
        (["--sizes", "3"], ["A list is written '[32,64]'."]),
        (["--res", "abc"], ["error: res must be an integer or a list of integers, got abc. A list is written"]),
        (["--res", "[8,x]"], ["error: res must be an integer or a list of integers, got [8, 'x']. See"]),
        (["--workers", "x"], ["error: workers must be an integer, got x. See"]),
        (["--num_images"], ["--num_images", "expected one argument"]),
    ],
)
def test_errors_are_one_line(arguments: list[str], parts: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert lines[0].endswith("See --help.")
    for part in parts:
        assert part in lines[0]


def laughs(levels: int = 10) -> str:
    """A short file that stands for 10^levels texts."""
    lines = ["l0: &l0 [ha]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, levels + 1)]
    return "\n".join([*lines, f"sizes: *l{levels}"])


BAD_FILES = {
    "laughs": (laughs().encode(), "line 1: anchors (&) and aliases (*) are not allowed"),
    "alias": (b"num_images: &n 3\nsizes: [*n]", "line 1: anchors"),
    "object": (b"sizes: !!python/object/apply:os.system ['touch pwned']", "tag:yaml.org,2002:python/object/apply"),
    "tag": (b"num_images: 1\nsizes: !mine [1]", "line 2: the tag !mine is not allowed"),
    "list": (b"- num_images\n- 3", "is not a list of settings (name: value, one per line)"),
    "number": (b"3", "is not a list of settings"),
    "empty": (b"", "it is empty"),
    "comment": (b"# nothing", "it is empty"),
    "binary": (bytes(range(256)), "is not a text file in UTF-8"),
    "latin": ("name: Gr\u00fc\u00dfe".encode("latin-1"), "is not a text file in UTF-8: byte 8"),
    "zeros": (bytes(100), "is not YAML"),
    "tabs": (b"num_images: 3\n\tdry_run: true", "found a tab character"),
    "unfinished": (b"sizes: [1", "line 1"),
    "nested": (b"sizes: " + b"[" * 100_000, "is not YAML"),
    "twice": (b"num_images: 1\nnum_images: 2", "sets num_images twice"),
    "two documents": (b"num_images: 1\n---\nnum_images: 2", "document"),
    "unhashable": (b"? [1, 2]\n: 3", "unhashable"),
    "large": (b"# much\n" * 200_000, "at most 1048576"),
    "unknown name": (b"num_image: 1", "Did you mean 'num_images'?"),
}


@pytest.mark.parametrize("spelling", ["two", "one"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_config_files_are_one_line(name: str, spelling: str, tmp_path: Path, capsys) -> None:
    content, part = BAD_FILES[name]
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    started = time.monotonic()
    with pytest.raises(SystemExit) as stop:
        parse(*(["--config", str(path)] if spelling == "two" else [f"--config={path}"]))
    assert stop.value.code == 2
    assert time.monotonic() - started < 5
    [line] = capsys.readouterr().err.splitlines()
    assert part in line
    assert name == "unknown name" or str(path) in line
    assert list(tmp_path.iterdir()) == [path]


def test_good_config_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("\ufeff# Grüße\r\nnum_images: 3\r\nsizes:\r\n  - 1\r\n".encode())
    assert parse("--config", str(tmp_path / "a.yaml")) == Settings(num_images=3, sizes=[1])
    (tmp_path / "b.json").write_text('{"dry_run": true}')
    assert parse("--config", str(tmp_path / "b.json"), "--num_images", "2") == Settings(num_images=2, dry_run=True)


def test_a_type_that_cannot_be_resolved_is_our_mistake() -> None:
    """jsonargparse would take any value for it, and for the other settings of the class, in silence."""
    settings = dataclasses.make_dataclass("Settings", [("steps", "NoSuchName", dataclasses.field(default=1))])
    with pytest.raises(AssertionError, match="The type of --steps is not resolved"):
        CommandParser().add_class_arguments(settings)
