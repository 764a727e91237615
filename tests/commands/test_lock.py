"""One process writes into a folder: the lock, its message, and what a killed holder leaves."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssd.commands.errors import UsageError
from ssd.commands.lock import LOCK_NAME, hold_folder

HOLD = """
import os, sys, time
from ssd.commands.errors import UsageError
from ssd.commands.lock import hold_folder
while not os.path.exists(sys.argv[2]):
    time.sleep(0.001)
try:
    with hold_folder(sys.argv[1]) as note:
        print("held", note, flush=True)
        sys.stdin.readline()
except UsageError as error:
    print("refused", error, flush=True)
"""


def start(folder: Path, gate: Path) -> subprocess.Popen:
    """A process that holds `folder` from when `gate` exists until it is told to end."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(gate)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_exactly_one_of_two_gets_the_folder(tmp_path) -> None:
    for attempt in range(3):
        folder, gate = tmp_path / f"run{attempt}" / "deep", tmp_path / f"gate{attempt}"
        processes = [start(folder, gate) for _ in range(2)]
        time.sleep(0.3)
        gate.touch()
        said = [process.stdout.readline().split() for process in processes]
        for process in processes:
            process.communicate("\n")
        assert sorted(words[0] for words in said) == ["held", "refused"], said
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_message_names_the_holder(order: tuple[int, int], tmp_path) -> None:
    processes: dict[int, subprocess.Popen] = {}
    said = {}
    (tmp_path / "gate").touch()
    for number in order:
        processes[number] = start(tmp_path / "run", tmp_path / "gate")
        said[number] = processes[number].stdout.readline()
    first, second = order
    for process in processes.values():
        process.communicate("\n")
    assert said[first].startswith("held None")
    assert f"is in use by process {processes[first].pid} on {socket.gethostname()}, since 20" in said[second]
    with hold_folder(tmp_path / "run") as note:  # both have ended
        assert note is None


def test_a_killed_holder_frees_the_folder(tmp_path) -> None:
    (tmp_path / "gate").touch()
    holder = start(tmp_path / "run", tmp_path / "gate")
    assert holder.stdout.readline().startswith("held")
    with pytest.raises(UsageError, match=f"process {holder.pid}"), hold_folder(tmp_path / "run"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with hold_folder(tmp_path / "run") as note:
        assert f"left by process {holder.pid} on {socket.gethostname()}" in note
        assert json.loads((tmp_path / "run" / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / "run" / LOCK_NAME).exists()


def test_a_worker_that_outlives_the_holder_does_not_keep_the_folder(tmp_path) -> None:
    ready, release = os.pipe(), os.pipe()
    holder = os.fork()
    if holder == 0:
        with hold_folder(tmp_path / "run"):
            if os.fork() == 0:
                os.read(release[0], 1)
                os._exit(0)
            os.write(ready[1], b"1")
            time.sleep(60)
    os.read(ready[0], 1)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    with hold_folder(tmp_path / "run") as note:
        assert f"process {holder}" in note
    os.write(release[1], b"1")


def test_a_forked_process_that_fails_does_not_release_it(tmp_path) -> None:
    with hold_folder(tmp_path):
        child = os.fork()
        if child == 0:
            try:
                with hold_folder(tmp_path):
                    pass
            except UsageError:
                os._exit(3)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        assert (tmp_path / LOCK_NAME).exists()


def test_an_exception_releases_it(tmp_path) -> None:
    with pytest.raises(RuntimeError), hold_folder(tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", '{"host": 3}', "not json"])
def test_a_damaged_lock_of_nobody_is_taken(content: str, tmp_path) -> None:
    (tmp_path / LOCK_NAME).write_text(content)
    with hold_folder(tmp_path) as note:
        assert note is None


@pytest.mark.parametrize(
    ("host", "pid", "allowed"),
    [(None, "dead", True), (None, "alive", False), ("elsewhere", "dead", False)],
    ids=["dead", "alive", "elsewhere"],
)
def test_where_the_file_system_has_no_locks(host, pid: str, allowed: bool, tmp_path, monkeypatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    gone = subprocess.Popen(["true"])
    gone.wait()
    number = gone.pid if pid == "dead" else os.getppid()
    entry = {"host": host or socket.gethostname(), "pid": number, "since": "2026-01-01 00:00:00 UTC"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK_NAME).write_text(json.dumps(entry))
    if allowed:
        with hold_folder(tmp_path / "run") as note:
            assert "was killed" in note
            with pytest.raises(UsageError, match=f"process {os.getpid()}"), hold_folder(tmp_path / "run"):
                pass
    else:
        with pytest.raises(UsageError, match=f"process {number} on"), hold_folder(tmp_path / "run"):
            pass
