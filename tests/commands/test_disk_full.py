"""A full disk is one line with what is lost, and the exit code of a failure of the machine."""

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from ssd.commands.errors import BrokenModel, TrainingStopped, exit_on_usage_error
from ssd.commands.files import write_text


def fail(error: Exception, *others: type[Exception]) -> int | str | None:
    """The exit code of a command that ends in `error`."""
    with pytest.raises(SystemExit) as stop, exit_on_usage_error(*others):
        raise error
    return stop.value.code


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
@pytest.mark.parametrize("others", [(), (ValueError, OSError)])
def test_one_line_and_exit_code_1(error: Exception, others: tuple, capsys) -> None:
    assert fail(error, *others) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: The disk is full: a file was not written")
    assert "written before are whole" in line


def test_the_lost_file_is_named_and_the_earlier_one_is_safe(tmp_path: Path, capsys, monkeypatch) -> None:
    write_text(tmp_path / "report.json", "earlier")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SystemExit) as stop, exit_on_usage_error():
        write_text(tmp_path / "report.json", "later")
    assert stop.value.code == 1
    assert f"The disk is full: {tmp_path / 'report.json'} was not written" in capsys.readouterr().err
    assert (tmp_path / "report.json").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [TrainingStopped("no\nstep is good"), BrokenModel("no\nstep is good")])
def test_failures_of_runs_and_models_are_one_line(error: Exception, capsys) -> None:
    assert fail(error) == 1
    assert capsys.readouterr().err == "error: no step is good\n"


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(OSError, match="broken"), exit_on_usage_error():
        raise OSError(errno.EIO, "broken")
