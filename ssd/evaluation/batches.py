"""What worker processes do for a measurement: resize pictures, cut patches, hash pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset

from ..commands.errors import UsageError
from .distances.patches import image_patches
from .features.resizing import resize_picture
from .plan import MeasurePlan


@dataclass
class Batch:
    """Pictures as the extractors take them, and what else is wanted of them.

    Parameters
    ----------
    indices : sequence of int
    inputs : dict
        Kind of resizing -> (B, C, H, W), float32 in [0, 255].
    digests : list of bytes
        SHA-256 of every picture's pixels.
    patches, pixels : dict
        By the number of the image, for those of the plan.
    error : str
        What is wrong with a picture; the rest is then empty.
    """

    indices: Sequence[int]
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    digests: list[bytes] = field(default_factory=list)
    patches: dict[int, dict[int, np.ndarray]] = field(default_factory=dict)
    pixels: dict[int, np.ndarray] = field(default_factory=dict)
    error: str = ""


class BatchMaker:
    """Makes a `Batch` of pictures; can be sent to worker processes.

    Parameters
    ----------
    plan : MeasurePlan
    count : int
        Number of all images.
    resizes : sequence of str
        Kinds of resizing that the extractors need.
    """

    def __init__(self, plan: MeasurePlan, count: int, resizes: Sequence[str]) -> None:
        self.resizes = sorted(set(resizes))
        self.patched = frozenset(plan.patched(count).tolist())
        kept = plan.kept(count).tolist() if plan.keep_pixels else []
        self.with_pixels = frozenset(kept) | frozenset(range(plan.num_first))

    def __call__(self, items: Sequence[tuple[int, np.ndarray | str]]) -> Batch:
        """A batch of (number, picture) pairs; a picture that could not be read is a text that says why."""
        indices = [index for index, _ in items]
        errors = [picture for _, picture in items if isinstance(picture, str)]
        if errors:
            return Batch(indices, error=errors[0])
        pictures = [np.ascontiguousarray(picture) for _, picture in items]
        return Batch(
            indices,
            {kind: torch.stack([resize_picture(picture, kind) for picture in pictures]) for kind in self.resizes},
            [hashlib.sha256(picture.tobytes()).digest() for picture in pictures],
            {i: image_patches(picture, i) for i, picture in zip(indices, pictures) if i in self.patched},
            {i: picture for i, picture in zip(indices, pictures) if i in self.with_pixels},
        )


class NumberedPictures(Dataset):
    """(number, picture) pairs; a picture's `UsageError` becomes a text, since workers wrap exceptions in tracebacks.

    Parameters
    ----------
    pictures : Dataset
        Items are (H, W, C) uint8 arrays.
    """

    def __init__(self, pictures: Dataset) -> None:
        self.pictures = pictures

    def __getitem__(self, index: int) -> tuple[int, np.ndarray | str]:
        try:
            return index, self.pictures[index]
        except UsageError as error:
            return index, str(error)
