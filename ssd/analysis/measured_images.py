"""Settings of a command that measures a data set at every level: which images, which sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from tqdm.auto import tqdm

from ..commands.errors import UsageError
from ..data import ImageStream, open_dataset
from ..data.dataset import ImageDataset
from ..data.sizes import parse_size
from ..data.some_images import NUM_IMAGES, some_images
from ..operators.linear import LinearOperator
from ..operators.resize import resize_operator
from ..operators.sizes import Size
from ..process.resolution import pyramid


@dataclass(frozen=True, kw_only=True)
class MeasuredImages:
    """Settings of the images. The noise is the paper's: linear betas, 1000 timesteps.

    Parameters
    ----------
    data : str
        The data set, as for training: digits, folder:PATH and so on.
    res : int or list of int
        The full resolution in pixels: one side, or [height, width].
    levels : int
        The number of resolutions, each half of the one before, at least 2.
    num : int
        The number of images to look at, drawn by the seed; of a stream the first ones.
    seed : int
        The seed of the choice.
    channels : int
        3 for colour, 1 for grey.
    split : str, optional
        The part of the data. The default is the data set's, which is the training split.
    crop_preset : str
        How pictures are cropped and resized.
    downsample_kernel : str
        How images shrink from level to level.
    """

    data: str
    res: int | list[int]
    levels: int
    num: int = NUM_IMAGES
    seed: int = 0
    channels: int = 3
    split: str | None = None
    crop_preset: str = "adm"
    downsample_kernel: Literal["bilinear", "area", "bicubic", "lanczos3", "dct"] = "bilinear"

    def __post_init__(self) -> None:
        for name, low in (("levels", 2), ("num", 2), ("seed", 0)):
            if getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")

    @property
    def sizes(self) -> list[Size]:
        """Of the levels, finest first."""
        return pyramid(parse_size(self.res), self.levels)

    @property
    def steps(self) -> list[LinearOperator]:
        """From every level to the next coarser one."""
        return [resize_operator(fine, coarse, self.downsample_kernel) for fine, coarse in pairwise(self.sizes)]

    def open(self) -> ImageDataset | ImageStream:
        """The data set, at the full resolution."""
        given: dict[str, Any] = {} if self.split is None else {"split": self.split}
        return open_dataset(self.data, self.sizes[0], self.crop_preset, channels=self.channels, **given)

    def images(self, dataset: ImageDataset | ImageStream) -> Iterator[torch.Tensor]:
        """The images, (C, H, W) each, with a progress bar where it takes long."""
        total = min(self.num, dataset.count or self.num)
        yield from tqdm(some_images(dataset, self.num, self.seed), "images", total, unit=" images", delay=2)
