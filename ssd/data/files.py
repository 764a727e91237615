"""Data made of many picture files below one folder: their names in little memory, and the data set of them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ..operators.sizes import Size
from .dataset import PixelDataset
from .labels import Classes
from .reading import UnreadableImage, read_size
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
    labels, classes
        See `PixelDataset`.
    """

    def __init__(
        self,
        request: DataRequest,
        files: FileList,
        split: str,
        labels: np.ndarray | None = None,
        classes: Classes | None = None,
    ) -> None:
        self.files = files
        super().__init__(request, len(files), split, labels, classes)

    def pixels(self, index: int) -> np.ndarray:
        file = self.files[index]
        return self.decoded(index, partial(Image.open, file), str(file))

    def header_sizes(self) -> Iterator[Size | UnreadableImage]:
        return map_files(self.files, lambda file: read_size(partial(Image.open, file), str(file)), "reading sizes")

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


class Listing:
    """The files below a folder that are not hidden, and what was passed over on the way.

    Links to folders are followed, but each folder is read once, whatever the number of links to it, so that loops end.

    Parameters
    ----------
    root : pathlib.Path

    Attributes
    ----------
    names : list of str
        Relative to `root`, sorted by their parts.
    dead_links : list of str
        Links that lead nowhere.
    repeated_links : list of str
        Links to folders that had been read.
    """

    def __init__(self, root: Path) -> None:
        self.dead_links: list[str] = []
        self.repeated_links: list[str] = []
        self._read = {_identity(root.stat())}
        self.names = list(self._below(root, ""))

    @property
    def notes(self) -> list[str]:
        """What people should know."""
        told = {"lead nowhere": self.dead_links, "lead to folders that are read already": self.repeated_links}
        return [
            f"Links that {what} were passed over, {len(links)} in all; the first is {links[0]}."
            for what, links in told.items()
            if links
        ]

    def _below(self, folder: Path, prefix: str) -> Iterator[str]:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        entries.sort(key=lambda entry: entry.name)
        kinds = [_kind(entry) for entry in entries]
        # A folder belongs to the shortest name that leads there, so all in here are taken before the first is read.
        taken = {entry.name for entry, kind in zip(entries, kinds) if kind == "folder" and self._take(entry, prefix)}
        for entry, kind in zip(entries, kinds):
            if entry.name in taken:
                yield from self._below(folder / entry.name, f"{prefix}{entry.name}/")
            elif kind == "file":
                yield prefix + entry.name
            elif kind == "dead link":
                self.dead_links.append(prefix + entry.name)

    def _take(self, folder: os.DirEntry[str], prefix: str) -> bool:
        """Whether a folder is read under this name; no other name leads there from now on."""
        identity = _identity(folder.stat())
        if identity in self._read:
            self.repeated_links.append(prefix + folder.name)
            return False
        self._read.add(identity)
        return True


@cache
def picture_extensions() -> frozenset[str]:
    """The extensions that Pillow reads, in lower case, with their dot."""
    extensions = Image.registered_extensions()
    unread = {"BUFR", "GRIB", "HDF5", "MPEG", "PALM", "PDF", "WMF"}  # written only, or read by a plugin of the user's
    return frozenset(extension for extension, format_name in extensions.items() if format_name not in unread)


def is_picture_name(name: str) -> bool:
    """Whether the last part of a file name is an extension that Pillow reads.

    Examples
    --------
    >>> is_picture_name("img.v1.JPEG"), is_picture_name("notes.txt"), is_picture_name("png")
    (True, False, False)
    """
    return extension_of(name) in picture_extensions()


def extension_of(name: str) -> str:
    """The last part of a file name in lower case, with its dot; empty where there is none."""
    return os.path.splitext(name)[1].lower()


def skipped_notes(names: Sequence[str]) -> list[str]:
    """A note that counts the files that were skipped, by extension.

    Examples
    --------
    >>> skipped_notes(["a.txt", "b.json", "c.TXT", "README"])
    ['4 files that are not pictures were skipped: 2 .txt, 1 .json, 1 without extension.']
    """
    if not names:
        return []
    counts = Counter(extension_of(name) or "without extension" for name in names).most_common()
    listed = ", ".join(f"{count} {extension}" for extension, count in counts)
    what = "1 file that is not a picture was" if len(names) == 1 else f"{len(names)} files that are not pictures were"
    return [f"{what} skipped: {listed}."]


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:  # a link that leads to itself, or to where we may not look
        return "dead link"
    return "dead link" if entry.is_symlink() else "special file"


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _file_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1
