"""Where a prepared copy keeps its pixels: one array that is mapped into memory.

N images of H x W pixels and C channels.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from ...commands.errors import UsageError
from ...commands.files import whole_file
from ...operators.sizes import Size


class PixelStore:
    """`images.npy`, (N, H, W, C), uint8: nothing to decode. Every process opens it when it first needs it.

    Parameters
    ----------
    folder : pathlib.Path
    count : int
        N.
    size : (height, width)
    channels : int
        C, 3 or 1.
    writable : bool
        Whether `write` will be called.
    """

    FILE = "images.npy"

    def __init__(self, folder: Path, count: int, size: Size, channels: int, writable: bool = False) -> None:
        self.path = folder / self.FILE
        self.shape = (count, *size, channels)
        self.writable = writable

    def create(self) -> None:
        """Make room for N images, unless it is there already."""
        if self.path.exists():
            return
        needed = int(np.prod(self.shape))
        try:
            with whole_file(self.path) as temporary:
                np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=self.shape).flush()
                if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not a crash in the middle
                    with temporary.open("r+b") as file:
                        os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END))
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"Cannot make {self.path} of {needed / 1e9:.3g} GB ({reason}).") from error

    def name(self, index: int) -> str:
        """Where an image is, relative to the folder."""
        return f"{self.FILE}[{index}]"

    def read(self, index: int) -> np.ndarray:
        """Pixels (H, W, C), uint8."""
        return self._array[index]

    def write(self, index: int, pixels: np.ndarray) -> None:
        """Keep pixels (H, W, C), uint8; a process that is killed leaves other images as they are."""
        self._array[index] = pixels

    @cached_property
    def _array(self) -> np.ndarray:
        try:
            array = np.load(self.path, mmap_mode="r+" if self.writable else "r")
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{self.path} cannot be read ({error}): prepare the copy again.") from error
        if array.shape != self.shape or array.dtype != np.uint8:
            raise UsageError(
                f"{self.path} is {array.dtype} {array.shape}, unlike its manifest: prepare the copy again."
            )
        return array

    def __getstate__(self) -> dict[str, object]:
        """Without the mapped array, which would be copied whole into every worker process."""
        return {key: value for key, value in self.__dict__.items() if key != "_array"}
