"""Drawn images in files: named by their numbers, so that a stopped run continues with those that are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm.auto import tqdm

from ..operators.sizes import Size
from ..sampling.image_folder import claim_image_folder, missing_images, picture_name, save_picture, write_labels
from .images import PictureFiles
from .processes import share
from .sampler import Sampler

FULL = "generated"


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
        folders = [folder for folder in self.path.glob(f"{FULL}*") if folder.is_dir()]
        claim_image_folder(self.path, folders, provenance, self.num, overwrite)
        write_labels(self.path, self.sampler.labels, self.sampler.image_labels(range(self.num)))

    def pictures(self, size: Size) -> PictureFiles:
        """The images of one size; they need not be drawn yet."""
        return PictureFiles([self._file(size, i) for i in range(self.num)], self.sampler.channels)

    def missing(self) -> list[int]:
        """Numbers of the images of which a picture is missing at any size, ascending."""
        return missing_images([self._folder(size) for size in self._sizes], self.num)

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
        return self._folder(size) / picture_name(index)


@contextmanager
def sampling_progress(state: PartialState, done: int, total: int) -> Iterator[Any]:
    """A bar of the images of all processes, on the main one: yields a function that takes a batch that is done."""
    hidden = not state.is_main_process
    with tqdm(total=total, initial=done, desc="sampling", unit=" images", disable=hidden, delay=1) as bar:

        def progress(batch: Sequence[int]) -> None:
            bar.update(min(len(batch) * state.num_processes, total - bar.n))

        yield progress
