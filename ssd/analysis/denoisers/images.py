"""Images for studies of denoisers: read, freed of near duplicates, and split into two halves that share none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from ...commands.errors import UsageError
from ...data import ImageStream, open_dataset
from .similarity import cosines

SIMILAR = 0.95
"""Of two images with a centred cosine above this, or below minus this, the later one is dropped."""

REDUCED = 20
"""Duplicates are looked for in images averaged down to about this many pixels a side."""

BLOCK = 1000
"""Images compared with all others at once."""


@dataclass(frozen=True)
class StudyImages:
    """Images without near duplicates, in [0, 1].

    Attributes
    ----------
    images : torch.Tensor
        (count, C, H, W), float32.
    dropped : int
        How many near duplicates were left out.
    """

    images: torch.Tensor
    dropped: int

    @property
    def half(self) -> int:
        """The most images that one denoiser can have."""
        return len(self.images) // 2


@dataclass(frozen=True)
class Split:
    """What each of two denoisers learns, and what it has not seen.

    Attributes
    ----------
    train : tuple of two np.ndarray
        Indices (N,): the first N of each half, of an order that the seed draws.
    test : tuple of two np.ndarray
        Indices: the last images of the other half, which the denoiser never sees.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def read_images(data: str, size: int, channels: int, drop_duplicates: bool = True) -> StudyImages:
    """Read a data set into memory.

    Raises
    ------
    UsageError
        When it cannot be read, is a stream, or has fewer than 2 images left.
    """
    dataset = open_dataset(data, size, channels=channels)
    if isinstance(dataset, ImageStream):
        raise UsageError(f"--data {data} is a stream, whose halves cannot be told apart: give data with a length.")
    numbers = tqdm(range(len(dataset)), "reading", unit=" images", delay=2, leave=False)
    images = torch.stack([torch.as_tensor(dataset[index]["image"]) for index in numbers])
    images = (images + 1) / 2
    kept = images[distinct(images)] if drop_duplicates else images
    if len(kept) < 2:
        raise UsageError(f"--data {data} has {len(kept)} different images, and at least 2 are needed.")
    return StudyImages(kept, len(images) - len(kept))


def distinct(images: torch.Tensor) -> torch.Tensor:
    """Indices of images of which no two are near duplicates: an image goes if it is like an earlier one that stays.

    Compared as in arXiv:2310.02557: averaged to about 20 pixels a side, by the centred cosine.

    Examples
    --------
    >>> picture = torch.tensor([[[0.0, 1.0], [2.0, 4.0]]])
    >>> distinct(torch.stack([picture, picture * 0.5 + 0.1, picture.flip(1)])).tolist()
    [0, 2]
    """
    factor = max(1, min(images.shape[-2:]) // REDUCED)
    small = F.avg_pool2d(images, factor)
    kept = torch.zeros(len(small), dtype=torch.bool)
    for start in tqdm(range(0, len(small), BLOCK), "near duplicates", delay=2, leave=False):
        block = small[start : start + BLOCK]
        is_new = torch.ones(len(block), dtype=torch.bool)
        if start:
            is_new = ~(cosines(block, small[:start][kept[:start]]).abs() > SIMILAR).any(dim=1)
        alike = cosines(block, block).abs() > SIMILAR
        for row in range(1, len(block)):
            is_new[row] &= not (alike[row, :row] & is_new[:row]).any()
        kept[start : start + len(block)] = is_new
    return kept.nonzero().flatten()


def split(count: int, size: int, seed: int, test_images: int = 128, flag: str = "--sizes") -> Split:
    """Two disjoint training sets of `size` images, of `count` images in an order drawn by the seed.

    Parameters
    ----------
    count : int
        All images, at least 2.
    size : int
        N, at most half of them.
    seed : int
    test_images : int
        At most so many test images for each denoiser.
    flag : str
        The flag that gave N, for the message.

    Raises
    ------
    UsageError
        When N is more than half.

    Examples
    --------
    >>> chosen = split(count=10, size=2, seed=0)
    >>> [len(part) for part in (*chosen.train, *chosen.test)]
    [2, 2, 5, 5]
    """
    half = count // 2
    if not 1 <= size <= half:
        raise UsageError(f"{flag} must be from 1 to {half}, half of the {count} images, got {size}.")
    order = np.random.default_rng(seed).permutation(count)
    halves = order[:half], order[half : 2 * half]
    train = halves[0][:size], halves[1][:size]
    test = halves[1][-test_images:], halves[0][-test_images:]
    for seen, unseen in (train, (train[0], test[0]), (train[1], test[1])):
        if np.intersect1d(seen, unseen).size:
            raise RuntimeError("Training and test images overlap.")
    return Split(train, test)
