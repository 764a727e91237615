"""Scripts that `learning.py` runs, several at once: what they say goes to files, and a signal stops them all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ssd.commands.errors import RunFailed

RUNNING: set[subprocess.Popen] = set()
"""The scripts that run now."""


def end_on_sigterm() -> None:
    """Let SIGTERM end the program as Ctrl-C does, through what is to be done at the end."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


@contextmanager
def workers(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for `run_command`.

    After a failure what runs still ends its work. SIGTERM and Ctrl-C stop it; a training then saves.
    """
    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield pool
        except (KeyboardInterrupt, SystemExit):
            for process in list(RUNNING):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def run_command(words: list[str], log: Path, threads: int) -> None:
    """Run a script; all it says goes to a file.

    Raises
    ------
    RunFailed
        When it fails, with the last line of what it said.
    """
    seldom = {"TQDM_MININTERVAL": "60", "OMP_NUM_THREADS": str(threads)}
    with log.open("a", encoding="utf-8") as said:
        start = said.tell()
        process = subprocess.Popen([sys.executable, *words], stdout=said, stderr=said, env=os.environ | seldom)
        RUNNING.add(process)
        code = process.wait()
        RUNNING.discard(process)
    name = Path(words[0]).name
    if code < 0:
        raise RunFailed(f"{name} was killed (signal {-code}), see {log}: run the same command to continue.")
    if code:
        with log.open(encoding="utf-8", errors="replace") as said:
            said.seek(start)
            raise RunFailed(f"{name} failed, see {log}: {last_line(said.read())}")


def last_line(text: str) -> str:
    """The last line of what a command said, without the word error before it."""
    return (text.strip().splitlines() or ["it said nothing"])[-1].rpartition("error: ")[2]
