"""`digits`: the 1797 handwritten digits of 8 x 8 pixels inside scikit-learn; nothing is downloaded."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import Dataset

DIGIT_SIZE = 8


def digit_pixels() -> tuple[np.ndarray, np.ndarray]:
    """The digits as they are: pixels (1797, 8, 8), float64 in [0, 1], and labels (1797,) in 0..9."""
    digits = load_digits()
    return digits.images / 16.0, digits.target


class Digits(Dataset):
    """Handwritten digits enlarged to `size` x `size` by bicubic interpolation.

    Items are dicts of `image` (3, size, size), float32 in [-1, 1], and `label`, 0..9.
    """

    def __init__(self, size: int) -> None:
        pixels, labels = digit_pixels()
        images = torch.from_numpy(pixels).float()[:, None] * 2 - 1
        if size != DIGIT_SIZE:
            images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)
        self.images = images.clamp(-1, 1).expand(-1, 3, -1, -1)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        return {"image": self.images[index], "label": int(self.labels[index])}
