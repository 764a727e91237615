"""What is measured of a set of images. The constants behind every report are here, once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..seeding import numpy_generator

ROUNDING = "uint8, to the nearest"
"""How images in [-1, 1] become 8-bit pictures, on both sides."""

PATCHED_IMAGES = 4096
"""From this many images patches are cut, for the sliced Wasserstein distance."""

SHOWN_IMAGES = 64
"""This many generated images are shown in a report."""

QUERIES = 16
"""For this many generated images the nearest images of the reference are sought."""


@dataclass(frozen=True)
class MeasurePlan:
    """What is measured, beyond the sums of features, which are measured of all images.

    Parameters
    ----------
    num_kept : int
        The features of this many images, chosen at random once and for all, are kept.
    num_patched : int
        Patches are cut from this many of them.
    num_first : int
        The features and the pixels of the first images, this many, are kept.
    keep_pixels : bool
        Keep the pixels of the `num_kept` images too.

    Examples
    --------
    >>> MeasurePlan(num_kept=3).kept(1000)
    array([337, 464, 600])
    """

    num_kept: int = 0
    num_patched: int = 0
    num_first: int = 0
    keep_pixels: bool = False

    @classmethod
    def of_generated(cls, num_kept: int, patches: bool = True, keep_pixels: bool = False) -> MeasurePlan:
        """What a report needs of generated images; `patches` are for the sliced Wasserstein distance."""
        return cls(num_kept, PATCHED_IMAGES if patches else 0, SHOWN_IMAGES, keep_pixels)

    @classmethod
    def of_reference(cls, num_kept: int, patches: bool = True) -> MeasurePlan:
        """What a report or a file of statistics needs of the reference."""
        return cls(num_kept, PATCHED_IMAGES if patches else 0)

    def kept(self, count: int) -> np.ndarray:
        """Numbers of those of `count` images whose features are kept, ascending; the same for every run."""
        return np.sort(_order(count)[: self.num_kept])

    def patched(self, count: int) -> np.ndarray:
        """Numbers of those of `count` images from which patches are cut, ascending."""
        return np.sort(_order(count)[: self.num_patched])


def _order(count: int) -> np.ndarray:
    return numpy_generator(0, "kept images", count).permutation(count)
