"""Files and folders that appear whole or not at all, whatever interrupts the writing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PART = ".part-"
"""How temporary names begin; what is left of a killed process can be found by it, and removed."""


@contextmanager
def whole_file(path: Path, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, which is made; afterwards the file written there is `path`.

    The temporary name ends like the final one, since writers choose formats by it. An exception removes the file and
    leaves an earlier `path` untouched; one of the operating system names `path`.

    Parameters
    ----------
    path : pathlib.Path
    sync : bool
        Wait until the disk has the file: for what must survive a power failure.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "new" / "numbers.txt"
    >>> with whole_file(target) as temporary:
    ...     _ = temporary.write_text("1 2 3")
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('1 2 3', 1)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        yield temporary
        if sync:
            flush_to_disk(temporary)
        os.replace(temporary, path)
        if sync:
            flush_to_disk(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary), temporary):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new temporary folder beside `path`; afterwards it is `path`, and an earlier one is gone.

    Its files are flushed to the disk before it takes its name.
    """
    temporary = _temporary_name(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                flush_to_disk(file)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        flush_to_disk(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed left in `folder`; nobody else may be writing there."""
    for leftover in folder.glob(f"{PART}*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def write_text(path: Path, text: str, sync: bool = False) -> None:
    """Write a text file, UTF-8, whole or not at all."""
    with whole_file(path, sync) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, sync: bool = False) -> None:
    """Write a JSON file, indented, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n", sync)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def flush_to_disk(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_name(path: Path) -> Path:
    return path.with_name(f"{PART}{os.getpid()}-{path.name}")
