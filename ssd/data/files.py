"""Data made of many picture files below one folder: their names in little memory, and the data set of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from .dataset import PixelDataset
from .request import DataRequest

T = TypeVar("T")

THREADS = 8
BLOCK = 256


class FileList:
    """Paths below `root`, in the order of `names`.

    Millions of Python strings would be copied into every worker process as soon as their reference counts are touched.
    Here they are one array of bytes, padded to the longest name, which stays shared.

    Parameters
    ----------
    root : pathlib.Path
    names : iterable of str
        Paths relative to `root`, with "/" between their parts.

    Examples
    --------
    >>> files = FileList(Path("/data"), ["a.png", "more/b.png"])
    >>> len(files), files.name(1), files[-1].as_posix()
    (2, 'more/b.png', '/data/more/b.png')
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root = root
        self._names = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)  # no name ends with NUL

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Path:
        return self.root / self.name(index)

    def __iter__(self) -> Iterator[Path]:
        return (self[index] for index in range(len(self)))

    def name(self, index: int) -> str:
        """The path relative to `root`."""
        return os.fsdecode(self._names[index])

    def content_hash(self) -> str:
        """SHA-256 of the sorted relative names and file sizes; a missing file counts as size -1."""
        sizes = map_files(self, _file_size, description="listing sizes")
        lines = sorted(os.fsencode(self.name(index)) + b"\0%d\n" % size for index, size in enumerate(sizes))
        return hashlib.sha256(b"".join(lines)).hexdigest()


class ImageFiles(PixelDataset):
    """Pictures of any format that Pillow reads, decoded, cropped and resized when they are asked for.

    Parameters
    ----------
    request : DataRequest
    files : FileList
    split : str
    labels, num_classes
        See `PixelDataset`.
    """

    def __init__(
        self,
        request: DataRequest,
        files: FileList,
        split: str,
        labels: np.ndarray | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.files = files
        super().__init__(request, len(files), split, labels, num_classes)

    def pixels(self, index: int) -> np.ndarray:
        file = self.files[index]
        return self.decoded(index, partial(Image.open, file), str(file))

    def image_name(self, index: int) -> str:
        return self.files.name(index)

    def content_hash(self) -> str:
        return self.files.content_hash()


def map_files(files: FileList, function: Callable[[Path], T], description: str) -> Iterator[T]:
    """`function` of every file, in order, by threads (network disks answer late), with a bar when it takes long."""

    def work(start: int) -> list[T]:
        return [function(files[index]) for index in range(start, min(start + BLOCK, len(files)))]

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
