"""What a sampling command writes: a folder of numbered images, a grid and an animation, whatever draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..commands.errors import UsageError
from ..commands.files import whole_file
from ..commands.output_paths import check_output_file, check_output_folder
from .image_folder import claim_image_folder, load_picture, missing_images, picture_name, save_picture
from .pictures import from_uint8, image_grid, to_uint8

ANIMATED_IMAGES = 9
MAX_GRID_IMAGES = 1024


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """Which images are drawn, and where they go.

    Parameters
    ----------
    model : str
        The folder of a pipeline, such as a training run's --out; a checkpoint in it, RUN/checkpoints/step_00001000, of
        which the averaged weights are taken; or a name on the Hub.
    num : int
        The number of images.
    grid : str, optional
        Write a PNG file with all images (at most the first 1024).
    animation : str, optional
        Write a GIF file of the first 9 images growing from coarse to fine.
    out : str, optional
        Write every image as a PNG file into this folder, named by its number; grey ones have one channel. The folder
        may hold images that the same settings drew, which are not drawn again, but no others.
    overwrite : bool
        Remove numbered images of other settings from --out.
    batch_size : int, optional
        The number of images per call of the network. The default is what suits the device. It changes speed and memory,
        not the images.
    device : str, optional
        The device: cpu, cuda, and so on. The default is the accelerator if there is one, else the CPU.
    """

    model: str
    num: int = 16
    grid: str | None = None
    animation: str | None = None
    out: str | None = None
    overwrite: bool = False
    batch_size: int | None = None
    device: str | None = None

    @property
    def animated(self) -> int:
        """The number of images in the animation."""
        return min(ANIMATED_IMAGES, self.num) if self.animation else 0

    def check_outputs(self) -> None:
        """Raise a `UsageError` for a number that makes no sense, and for what could not be written after the work."""
        for name, value in (("num", self.num), ("batch_size", self.batch_size)):
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be at least 1, got {value}.")
        if not (self.grid or self.animation or self.out):
            raise UsageError("Nothing to write: give at least one of --grid FILE, --animation FILE and --out FOLDER.")
        if self.grid:
            check_output_file(self.grid, "--grid", ".png")
        if self.animation:
            check_output_file(self.animation, "--animation", ".gif")
        if self.out:
            check_output_folder(self.out, "--out")


@dataclass
class Outputs:
    """The images of a command on their way to its files.

    Parameters
    ----------
    settings : OutputSettings
    missing : list of int
        Numbers of the images that are not in --out yet, ascending; all of them without --out.
    """

    settings: OutputSettings
    missing: list[int]
    _shown: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def to_draw(self) -> list[int]:
        """The missing images, and those that an animation needs though they are there."""
        return sorted({*range(self.settings.animated), *self.missing})

    def keep(self, indices: Sequence[int], images: torch.Tensor) -> None:
        """Write the missing ones of these images (B, C, H, W) in [-1, 1], and remember those of the grid."""
        unsaved = set(self.missing)
        for index, pixels in zip(indices, to_uint8(images)):
            if self.settings.out and index in unsaved:
                save_picture(Path(self.settings.out) / picture_name(index), pixels)
            if self.settings.grid and index < MAX_GRID_IMAGES:
                self._shown[index] = pixels

    def finish(
        self,
        save_animation: Callable[[Path], None],
        arrange: Callable[[torch.Tensor], Image.Image] = image_grid,
    ) -> list[str]:
        """Write the grid, of the images (B, C, H, W) as they are arranged, and the animation.

        Returns
        -------
        list of str
            What was written, in words.
        """
        settings, written = self.settings, []
        if settings.out:
            there = settings.num - len(self.missing)
            written.append(
                f"{settings.num} images to {settings.out}" + (f"; {there} of them were there" if there else "")
            )
        if settings.grid:
            with whole_file(Path(settings.grid)) as temporary:
                arrange(from_uint8(np.stack(self._grid_pictures()))).save(temporary)
            written.append(settings.grid)
        if settings.animation:
            with whole_file(Path(settings.animation)) as temporary:
                save_animation(temporary)
            written.append(settings.animation)
        return written

    def _grid_pictures(self) -> list[np.ndarray]:
        """The first images, as drawn or from --out."""
        numbers = range(min(self.settings.num, MAX_GRID_IMAGES))
        folder = Path(str(self.settings.out))
        return [self._shown[i] if i in self._shown else load_picture(folder / picture_name(i)) for i in numbers]


def open_outputs(settings: OutputSettings, decisive: Mapping[str, Any]) -> Outputs:
    """Make --out a folder of these images alone; `decisive`: what decides over their pixels. It is held meanwhile.

    Raises
    ------
    UsageError
        When the folder holds images that were drawn differently, or that nobody knows of.
    """
    if not settings.out:
        return Outputs(settings, list(range(settings.num)))
    folder = Path(settings.out)
    claim_image_folder(folder, [folder], decisive, settings.num, settings.overwrite)
    return Outputs(settings, missing_images([folder], settings.num))
