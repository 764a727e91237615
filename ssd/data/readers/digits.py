"""`digits`: the 1797 handwritten digits of 8 x 8 pixels inside scikit-learn; nothing is downloaded."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...commands.errors import UsageError
from ..dataset import ImageDataset, Item
from ..labels import number_classes
from ..request import DataRequest

DIGIT_SIZE = 8


def digit_pixels() -> tuple[np.ndarray, np.ndarray]:
    """The digits as they are: pixels (1797, 8, 8), float64 in [0, 1], and labels (1797,) in 0..9."""
    from sklearn.datasets import load_digits  # a slow import, which other data do not need

    digits = load_digits()
    return digits.images / 16.0, digits.target


class Digits(ImageDataset):
    """Handwritten digits enlarged to the size asked for by bicubic interpolation.

    Items are dicts of `image` (C, H, W), float32 in [-1, 1], and `label`, 0..9. They have no crop, so that only the
    default preset is allowed, and a size that is not square stretches them.
    """

    def __init__(self, request: DataRequest) -> None:
        if request.preset.name != "adm":
            raise UsageError(f"digits have nothing to crop: leave the preset at adm, got {request.preset.name}.")
        pixels, self.labels = digit_pixels()
        super().__init__(request, request.without_splits(), len(pixels), number_classes(range(10), request.spec))
        images = torch.from_numpy(pixels).float()[:, None] * 2 - 1
        if request.size != (DIGIT_SIZE, DIGIT_SIZE):
            images = F.interpolate(images, size=request.size, mode="bicubic", antialias=True)
        self.images = images.clamp(-1, 1).expand(-1, request.channels, -1, -1)

    @property
    def provenance(self) -> dict[str, Any]:
        """As of every data set; nothing is cropped."""
        return super().provenance | {"preset": "none", "filter": "bicubic, antialiased, in floating point"}

    def content_hash(self) -> str:
        pixels, labels = digit_pixels()
        return hashlib.sha256(pixels.tobytes() + labels.astype("<i8").tobytes()).hexdigest()

    def __getitem__(self, index: int) -> Item:
        return {"image": self.images[index], "label": int(self.labels[index])}
