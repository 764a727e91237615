"""Names of many files below one folder, in little memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from tqdm.auto import tqdm

T = TypeVar("T")

THREADS = 8
BLOCK = 256


class FileList(Sequence[Path]):
    """Paths below `root`, in the order of `names`.

    Millions of Python strings would be copied into every worker process as soon as their reference counts are touched;
    here they are two arrays, which stay shared.

    Parameters
    ----------
    root : pathlib.Path
    names : iterable of str
        Paths relative to `root`, with "/" between their parts.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root = root
        encoded = [os.fsencode(name) for name in names]
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._text = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...

    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.root / self.name(index)

    def __iter__(self) -> Iterator[Path]:
        return (self[index] for index in range(len(self)))

    def name(self, index: int) -> str:
        """The path relative to `root`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"file {index} of {len(self)}")
        index %= len(self)
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._text[start : int(self._ends[index])])

    def content_hash(self) -> str:
        """SHA-256 of the sorted relative names and file sizes; a missing file counts as size -1."""
        sizes = map_files(self, _file_size, description="listing sizes")
        lines = sorted(os.fsencode(self.name(index)) + b"\0%d\n" % size for index, size in enumerate(sizes))
        return hashlib.sha256(b"".join(lines)).hexdigest()


def map_files(files: FileList, function: Callable[[Path], T], description: str) -> Iterator[T]:
    """`function` of every file, in order, by threads (network disks answer late), with a bar when it takes long."""

    def work(start: int) -> list[T]:
        return [function(file) for file in files[start : start + BLOCK]]

    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(total=len(files), desc=description, unit=" files", delay=2) as bar,
    ):
        try:
            for results in pool.map(work, range(0, len(files), BLOCK)):
                yield from results
                bar.update(len(results))
        finally:
            pool.shutdown(cancel_futures=True)


def names_below(folder: Path, prefix: str = "") -> Iterator[str]:
    """Relative names of all files below a folder that are not hidden, sorted; links to folders are not followed."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from names_below(folder / entry.name, f"{prefix}{entry.name}/")
        elif entry.is_file():
            yield prefix + entry.name


def _file_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1
