"""Pictures smaller than the images asked for: left out, or kept at the size of the finest level that they fill.

A picture fills a size if neither side is shorter, so that nothing is enlarged. Levels are sizes, fine to coarse, and a
picture that fills one fills all coarser ones. It is read at its own level's size as if all images had that size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..commands.errors import UsageError
from ..operators.sizes import Size
from .dataset import Item, PixelDataset
from .held_out import PartOfData
from .sizes import size_text

SmallImages = Literal["upscale", "levels", "skip"]


def finest_filled(pictures: np.ndarray, sizes: Sequence[Size]) -> np.ndarray:
    """The first of `sizes` that each picture fills, (N,); `len(sizes)` where it fills none.

    Parameters
    ----------
    pictures : np.ndarray
        (N, 2), height and width.
    sizes : sequence of (height, width)
        Fine to coarse.

    Examples
    --------
    >>> finest_filled(np.array([[64, 80], [63, 80], [31, 64]]), [(64, 64), (32, 32)])
    array([0, 1, 2])
    """
    filled = np.all(pictures[:, None] >= np.array(sizes), axis=2)
    return np.where(filled.any(axis=1), filled.argmax(axis=1), len(sizes))


class LevelImages(PartOfData):
    """Images of several sizes: each at that of its level.

    Parameters
    ----------
    whole : PixelDataset
    sizes : sequence of (height, width)
        Of the levels, fine to coarse.
    finest : np.ndarray
        Of `finest_filled`; pictures that fill no level are left out.
    """

    def __init__(self, whole: PixelDataset, sizes: Sequence[Size], finest: np.ndarray) -> None:
        indices = np.flatnonzero(finest < len(sizes))
        super().__init__(whole, indices.tolist(), "pictures at the size of the finest level that each fills")
        self.levels = finest[indices]
        self._at_level = [whole.at_size(size, finest <= level) for level, size in enumerate(sizes)]

    def __getitem__(self, index: int) -> Item:
        assert self.levels is not None
        return self._at_level[self.levels[index]][self.indices[index]]


def without_enlarging(
    dataset: PixelDataset, sizes: Sequence[Size], small_images: SmallImages
) -> PixelDataset | PartOfData:
    """A data set in which no picture is enlarged; itself where all pictures are large enough.

    Parameters
    ----------
    dataset : PixelDataset
    sizes : sequence of (height, width)
        Of the levels, fine to coarse; the first is that of the data set.
    small_images : {"levels", "skip"}
        What becomes of pictures that do not fill the first size.

    Raises
    ------
    UsageError
        For data whose pictures have no size of their own, and where no picture fills the first size.
    """
    sizes = sizes if small_images == "levels" else sizes[:1]
    finest = finest_filled(dataset.picture_sizes(), sizes)
    counts = np.bincount(finest, minlength=len(sizes) + 1).tolist()
    if counts[0] == 0:
        raise UsageError(
            f"None of the {dataset.count} pictures of {dataset.request.spec} fills {size_text(sizes[0])}, so that "
            "nothing could be learned at that size: use a smaller --res, or --small_images upscale."
        )
    if counts[0] == dataset.count:
        return dataset
    part: PartOfData
    if small_images == "levels":
        part = LevelImages(dataset, sizes, finest)
    else:
        part = PartOfData(dataset, np.flatnonzero(finest == 0).tolist(), f"pictures that fill {size_text(sizes[0])}")
    told = ", ".join(f"{count} fill {size_text(size)}" for count, size in zip(counts, sizes))
    left_out = f"{counts[-1]} fill none of these and are left out"
    part.opening_notes = [*dataset.opening_notes, f"of {dataset.count} pictures {told}; {left_out}."]
    return part
