"""`calpha:ALPHA`, `discs` and `sines`: images of a known geometry, made when they are read; nothing is stored.

Their formulas are in `ssd.data.image_classes`.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from typing import Any

import numpy as np

from ...commands.errors import UsageError
from ...operators.sizes import Size
from ..dataset import PixelDataset
from ..image_classes import c_alpha_image, c_alpha_numbers, disc_image, disc_parameters, sine_image, sine_parameters
from ..request import DataRequest
from ..sizes import size_text

SEED = 0
SPLITS = {"train": range(100_000), "test": range(100_000, 110_000)}
"""Split -> the numbers of its images; no image is in both."""

SMALLEST_SIDE = 4
HASHED_IMAGES = 8


class ImageClass(PixelDataset):
    """Images of one class, grey, rounded to 8 bits as those of every data set; with 3 channels they are repeated.

    Image i is a function of the class, the size and i. At another size it is another image. There is nothing to crop,
    so that only the default preset is allowed. A subclass supplies `image`.

    Raises
    ------
    UsageError
        For another preset, an unknown split, and images of fewer than `SMALLEST_SIDE` pixels.
    """

    def __init__(self, request: DataRequest) -> None:
        if request.preset.name != "adm":
            raise UsageError(f"{request.spec} has nothing to crop: leave the preset at adm, got {request.preset.name}.")
        if min(request.size) < SMALLEST_SIDE:
            raise UsageError(
                f"{request.spec} needs sides of at least {SMALLEST_SIDE} pixels, got {size_text(request.size)}."
            )
        split = request.choose_split({name: name for name in SPLITS})
        self.numbers = SPLITS[split]
        super().__init__(request, len(self.numbers), split)

    @abstractmethod
    def image(self, number: int, size: Size) -> np.ndarray:
        """The image (H, W), float64 in [0, 1]."""

    def pixels(self, index: int) -> np.ndarray:
        rounded = np.rint(255 * self.image(self.numbers[index], self.size)).astype(np.uint8)
        return np.repeat(rounded[..., None], self.request.channels, axis=2)

    def image_name(self, index: int) -> str:
        return f"{self.request.spec}[{self.numbers[index]}]"

    @property
    def provenance(self) -> dict[str, Any]:
        """As of every data set; nothing is cropped or resized."""
        return super().provenance | {"preset": "none", "filter": "none, made at this size"}

    def content_hash(self) -> str:
        """Of the first images at this size: it changes when the formulas do."""
        digest = hashlib.sha256(f"{len(self)} images {self.size}".encode())
        for index in range(HASHED_IMAGES):
            digest.update(self.pixels(index)[..., 0].tobytes())
        return digest.hexdigest()


class CAlphaImages(ImageClass):
    """C^alpha images: two smooth backgrounds that meet at a smooth edge, both of regularity ALPHA."""

    def __init__(self, request: DataRequest) -> None:
        self.alpha = parse_alpha(request.path)
        super().__init__(request)

    def image(self, number: int, size: Size) -> np.ndarray:
        return c_alpha_image(*c_alpha_numbers(SEED, number, size), alpha=self.alpha)


class Discs(ImageClass):
    """Discs: five dimensions, centre, radius, foreground and background."""

    def image(self, number: int, size: Size) -> np.ndarray:
        return disc_image(disc_parameters(SEED, number, size), size).numpy()


class Sines(ImageClass):
    """Plane waves: two dimensions, amplitude and direction."""

    def image(self, number: int, size: Size) -> np.ndarray:
        return sine_image(sine_parameters(SEED, number), size).numpy()


def parse_alpha(text: str) -> float:
    """The regularity in `calpha:ALPHA`."""
    try:
        alpha = float(text)
    except ValueError:
        alpha = math.nan
    if not 0 < alpha < math.inf:
        raise UsageError(f"ALPHA in calpha:ALPHA must be a positive number such as calpha:2, got {text!r}.")
    return alpha
