"""Can the results be written? Asked before long work, not after it."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UsageError


def check_output_folder(path: str | Path, flag: str) -> None:
    """Raise a `UsageError` unless `path` is a folder, or can be made one, that this user may write to."""
    path = Path(path)
    existing = next(candidate for candidate in (path, *path.absolute().parents) if candidate.exists())
    if not existing.is_dir():
        raise UsageError(f"{flag} {path} cannot be a folder: {existing} is a file.")
    if not os.access(existing, os.W_OK):
        raise UsageError(f"{flag} {path} cannot be written: you have no permission for {existing}.")


def check_output_file(path: str | Path, flag: str, suffix: str) -> None:
    """Raise a `UsageError` unless the file `path` with the ending `suffix`, such as ".png", can be written."""
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise UsageError(f"{flag} {path} must end in {suffix}.")
    if path.is_dir():
        raise UsageError(f"{flag} {path} is a folder: give a file.")
    check_output_folder(path.parent, flag)
