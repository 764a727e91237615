"""Mistakes of the user: commands print them as one line and exit with 2; everything else keeps its traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """What is wrong, what was given, what is allowed and how to fix it, in one line."""


class TrainingStopped(RuntimeError):
    """A run that cannot go on, through no mistake of the command line: one line, exit code 1."""


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

    Wrap a whole command with it; wrap only the reading of the user's input with `ValueError` and the like as
    `others`, since in long work they would hide bugs.
    """
    try:
        yield
    except TrainingStopped as error:
        print(printable(f"error: {error}"), file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None
    except (UsageError,) + others as error:  # noqa: RUF005 (mypy cannot type an unpacked tuple here)
        print("error: " + printable(" ".join(str(error).split())), file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
