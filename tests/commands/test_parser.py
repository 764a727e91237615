"""The parser that all commands share."""

from dataclasses import dataclass

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
    """

    num_images: int = 1
    dry_run: bool = False
    sizes: list[int] | None = None


def parse(*arguments: str) -> Settings:
    parser = CommandParser(prog="command", renamed={"count": "num_images"})
    parser.add_class_arguments(Settings)
    return Settings(**parser.parse_args(list(arguments)).as_dict())


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


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--num_image", "3"], ["--num_image", "Did you mean 'num_images'?"]),
        (["--num_images", "many"], ["num_images", "many"]),
        (["--sizes", "3"], ["A list is written '[32,64]'."]),
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
