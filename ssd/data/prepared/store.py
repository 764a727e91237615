"""Where a prepared copy keeps its pixels: a PNG per image, or one array that is mapped into memory.

N images of S x S pixels.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ...commands.errors import UsageError
from ..reading import PILLOW_ERRORS, UnreadableImage


class Store(ABC):
    """Images by index, in a folder. Files are opened when they are first used, in each process anew.

    Parameters
    ----------
    folder : pathlib.Path
    count : int
        N.
    size : int
        S.
    writable : bool
        Whether `write` will be called.
    """

    def __init__(self, folder: Path, count: int, size: int, writable: bool = False) -> None:
        self.folder = folder
        self.count = count
        self.size = size
        self.writable = writable

    def create(self) -> None:
        """Make room for N images, unless it is there already."""
        self.folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def name(self, index: int) -> str:
        """Where an image is, relative to the folder."""

    @abstractmethod
    def read(self, index: int) -> np.ndarray:
        """Pixels (S, S, 3), uint8. Raises `UnreadableImage`."""

    @abstractmethod
    def write(self, index: int, pixels: np.ndarray) -> None:
        """Keep pixels (S, S, 3), uint8; a process that is killed leaves other images as they are."""


class PngStore(Store):
    """`images/00012/00012345.png`: can be looked at, and needs no special reader."""

    def name(self, index: int) -> str:
        return f"images/{index // 1000:05d}/{index:08d}.png"

    def read(self, index: int) -> np.ndarray:
        file = self.folder / self.name(index)
        try:
            with Image.open(io.BytesIO(file.read_bytes())) as image:
                pixels = np.asarray(image)
        except PILLOW_ERRORS as error:
            raise UnreadableImage(f"Cannot read the image {file} ({error}): prepare the copy again.") from error
        if pixels.shape != (self.size, self.size, 3) or pixels.dtype != np.uint8:
            raise UnreadableImage(
                f"{file} is {pixels.dtype} {pixels.shape}, not {self.size} x {self.size} RGB: prepare the copy again."
            )
        return pixels

    def write(self, index: int, pixels: np.ndarray) -> None:
        file = self.folder / self.name(index)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.part")
        Image.fromarray(pixels).save(temporary, "PNG", compress_level=1)
        os.replace(temporary, file)


class PackedStore(Store):
    """`images.npy`, (N, S, S, 3), uint8: mapped into memory, nothing to decode."""

    FILE = "images.npy"

    def create(self) -> None:
        super().create()
        path = self.folder / self.FILE
        if path.exists():
            return
        temporary = path.with_name(f".{path.name}.part")
        shape = (self.count, self.size, self.size, 3)
        needed = int(np.prod(shape))
        try:
            np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape).flush()
            if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not a crash in the middle
                with temporary.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END))
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise UsageError(f"Cannot make {path} of {needed / 1e9:.3g} GB ({error.strerror or error}).") from error
        os.replace(temporary, path)

    @cached_property
    def _array(self) -> np.ndarray:
        path = self.folder / self.FILE
        try:
            array = np.load(path, mmap_mode="r+" if self.writable else "r")
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{path} cannot be read ({error}): prepare the copy again.") from error
        if array.shape != (self.count, self.size, self.size, 3) or array.dtype != np.uint8:
            raise UsageError(f"{path} is {array.dtype} {array.shape}, unlike its manifest: prepare the copy again.")
        return array

    def __getstate__(self) -> dict[str, object]:
        """Without the mapped array, which would be copied whole into every worker process."""
        return {key: value for key, value in self.__dict__.items() if key != "_array"}

    def name(self, index: int) -> str:
        return f"{self.FILE}[{index}]"

    def read(self, index: int) -> np.ndarray:
        return self._array[index]

    def write(self, index: int, pixels: np.ndarray) -> None:
        self._array[index] = pixels


STORES: dict[str, type[Store]] = {"png": PngStore, "packed": PackedStore}
