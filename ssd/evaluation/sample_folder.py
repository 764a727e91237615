"""Drawn images in files: named by their numbers, so that a stopped run continues with those that are missing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from PIL import Image
from tqdm.auto import tqdm

from ..commands.errors import UsageError
from ..commands.files import remove_leftovers, whole_file, write_json
from ..operators.sizes import Size
from .images import PictureFiles
from .processes import share
from .sampler import Sampler

FULL = "generated"
SETTINGS_FILE = "samples.json"
LABELS_FILE = "labels.json"


@dataclass(frozen=True)
class SampleFolder:
    """A folder of numbered images of one origin.

    The images are in `generated`, those of a coarser level in `generated_HxW`; `samples.json` says what decides over
    their pixels, `labels.json` has the classes.

    Parameters
    ----------
    path : pathlib.Path
    sampler : Sampler
    num : int
        Number of images.
    """

    path: Path
    sampler: Sampler
    num: int

    def prepare(self, provenance: dict[str, Any], overwrite: bool) -> None:
        """Make sure that all images are of one origin, and write it down; on the main process only.

        Raises
        ------
        UsageError
            When the folder holds images drawn differently.
        """
        path = self.path / SETTINGS_FILE
        before = _read_json(path) if path.is_file() else provenance
        if before != provenance:
            if not overwrite:
                name = next(key for key in provenance if before.get(key) != provenance[key])
                raise UsageError(
                    f"{self.path} holds images of another run: {name} is {before.get(name)!r} there and "
                    f"{provenance[name]!r} here; choose another --out, or remove them with --overwrite."
                )
            for file in self.path.glob(f"{FULL}*/[0-9]*.png"):
                file.unlink()
        for folder in (self.path, *self.path.glob(f"{FULL}*")):
            remove_leftovers(folder)
        write_json(path, provenance)
        labels = self.sampler.image_labels(range(self.num))
        if labels is not None:
            write_json(self.path / LABELS_FILE, {"kind": self.sampler.labels, "labels": labels})

    def pictures(self, size: Size) -> PictureFiles:
        """The images of one size; they need not be drawn yet."""
        return PictureFiles([self._file(size, i) for i in range(self.num)])

    def missing(self) -> list[int]:
        """Numbers of the images of which a picture is missing at any size, ascending."""
        folders = [self._folder(size) for size in self._sizes]
        present = [{entry.name for entry in os.scandir(f)} if f.is_dir() else set() for f in folders]
        return [i for i in range(self.num) if any(_picture_name(i) not in names for names in present)]

    def fill(self, state: PartialState) -> None:
        """Draw the missing images, each process its share; every file appears whole or not at all."""
        missing = self.missing()
        state.wait_for_everyone()  # nobody writes before all have looked
        batch = self.sampler.network_batch
        batches = share([missing[i : i + batch] for i in range(0, len(missing), batch)], state)
        with sampling_progress(state, done=self.num - len(missing), total=self.num) as progress:
            for indices in batches:
                for size, pictures in reversed(
                    self.sampler.draw(indices).items()
                ):  # the images last: they mark completion
                    for index, pixels in zip(indices, pictures):
                        save_picture(self._file(size, index), pixels)
                progress(indices)
        state.wait_for_everyone()

    @property
    def _sizes(self) -> list[Size]:
        return [self.sampler.size, *self.sampler.levels]

    def _folder(self, size: Size) -> Path:
        return self.path / (FULL if size == self.sampler.size else f"{FULL}_{size[0]}x{size[1]}")

    def _file(self, size: Size, index: int) -> Path:
        return self._folder(size) / _picture_name(index)


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) uint8 as PNG, whole or not at all."""
    with whole_file(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


@contextmanager
def sampling_progress(state: PartialState, done: int, total: int) -> Iterator[Any]:
    """A bar of the images of all processes, on the main one: yields a function that takes a batch that is done."""
    hidden = not state.is_main_process
    with tqdm(total=total, initial=done, desc="sampling", unit=" images", disable=hidden, delay=1) as bar:

        def progress(batch: Sequence[int]) -> None:
            bar.update(min(len(batch) * state.num_processes, total - bar.n))

        yield progress


def _picture_name(index: int) -> str:
    return f"{index:06d}.png"


def _read_json(path: Path) -> dict:
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, OSError) as error:
        raise UsageError(f"{path} cannot be read ({error}): remove it and the images beside it.") from error
