"""Images that a run does not learn from: a part of a data set that has no split of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..commands.errors import UsageError
from .dataset import ImageDataset, Item
from .stream import ImageStream


class PartOfData(ImageDataset):
    """Some images of a data set, in the given order.

    Parameters
    ----------
    whole : ImageDataset
    indices : sequence of int
        In `whole`.
    name : str
        Of the part, for the provenance.
    """

    def __init__(self, whole: ImageDataset, indices: Sequence[int], name: str) -> None:
        super().__init__(whole.request, whole.split, len(indices))
        self.whole, self.indices, self.name = whole, [int(index) for index in indices], name
        self.num_classes, self.class_names = whole.num_classes, whole.class_names
        self.opening_notes = whole.opening_notes
        self.counts_own_reads = whole.counts_own_reads
        self.levels = None if whole.levels is None else whole.levels[self.indices]

    @property
    def provenance(self) -> dict[str, Any]:
        """That of the whole, with the part."""
        return self.whole.provenance | {"count": self.count, "part": self.name}

    def content_hash(self) -> str:
        return self.whole.content_hash()

    @property
    def bad_images(self) -> list[str]:
        """Those of the whole that were read."""
        return self.whole.bad_images

    def conversion_counts(self) -> dict[str, int]:
        return self.whole.conversion_counts()

    def __getitem__(self, index: int) -> Item:
        return self.whole[self.indices[index]]


def hold_out(dataset: ImageDataset | ImageStream, num: int) -> tuple[ImageDataset, ImageDataset]:
    """The images to learn from, and `num` others.

    The others are the last ones of a permutation that depends on the length of the data alone: they are the same for
    every run, whatever its seed. Where images have several sizes, the others have the full one.

    Raises
    ------
    UsageError
        For a stream, or when nothing is left to learn from.

    Examples
    --------
    >>> from ssd.data import open_dataset
    >>> [len(part) for part in hold_out(open_dataset("digits", 8), 297)]
    [1500, 297]
    """
    if isinstance(dataset, ImageStream):
        raise UsageError(f"Images cannot be held out of {dataset.request.spec}, a stream: prepare a copy.")
    order = np.random.default_rng(0).permutation(len(dataset))
    if dataset.levels is not None:
        order = order[np.argsort(dataset.levels[order] == 0, kind="stable")]
    full = len(dataset) if dataset.levels is None else int((dataset.levels == 0).sum())
    if not 0 < num < full:
        raise UsageError(f"Of {full} images between 1 and {full - 1} can be held out, got {num}.")
    rest, held_out = order[:-num].tolist(), order[-num:].tolist()
    return (
        PartOfData(dataset, rest, f"all but {num} held-out images"),
        PartOfData(dataset, held_out, f"{num} held-out images"),
    )
