"""Mistakes of the user: commands print them as one line and exit with 2; everything else keeps its traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """What is wrong, what was given, what is allowed and how to fix it, in one line."""


class RunFailed(RuntimeError):
    """A failure of the machine or of the model, through no mistake of the command line: one line, exit code 1."""


class TrainingStopped(RunFailed):
    """A training run that cannot continue."""


class BrokenModel(RunFailed):
    """A model that gives NaN or infinity."""


DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
WHAT_IS_SAFE = "Files that were written before are whole: free some space, and run the same command again."


def is_disk_full(error: Exception) -> bool:
    """Whether an exception says that the disk, or the user's share of it, is full.

    Not every library passes the number of the system's error on; its text they do.
    """
    by_number = isinstance(error, OSError) and error.errno in DISK_FULL
    return by_number or any(os.strerror(number) in str(error) for number in DISK_FULL)


def printable(text: str) -> str:
    """Text without control characters: a file name must not steer the terminal that shows it.

    Examples
    --------
    >>> print(printable("a\\x1b[2J.png"))
    a\\x1b[2J.png
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def exit_on_usage_error(*others: type[Exception]) -> Iterator[None]:
    """Turn a `UsageError` (and the exceptions `others`) into one line on standard error and exit code 2.

    A `RunFailed` and a full disk become one line and exit code 1.

    Wrap a whole command with it; wrap only the reading of the user's input with `ValueError` and the like as
    `others`, since in long work they would hide bugs.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RunFailed):
            message, code = str(error), 1
        elif is_disk_full(error):
            lost = getattr(error, "filename", None) or "a file"
            cause = getattr(error, "strerror", None) or error
            message, code = f"The disk is full: {lost} was not written ({cause}). {WHAT_IS_SAFE}", 1
        elif isinstance(error, (UsageError, *others)):
            message, code = str(error), 2
        else:
            raise
        print("error: " + printable(" ".join(message.split())), file=sys.stderr)  # noqa: T201
        raise SystemExit(code) from None
