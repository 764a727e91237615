"""Feature extractors: images in [-1, 1] -> feature vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

FeatureExtractor = Callable[[torch.Tensor], torch.Tensor]
"""(B, 3, H, W), values in [-1, 1] -> (B, D)."""

PIXEL_SIDE = 8


def reduce_to_pixels(images: torch.Tensor) -> torch.Tensor:
    """Images reduced to 8 x 8 by area: (B, C, H, W) in [-1, 1] -> (B, C, 8, 8)."""
    return F.interpolate(images, size=(PIXEL_SIDE, PIXEL_SIDE), mode="area")


def pixel_features(images: torch.Tensor) -> torch.Tensor:
    """The image reduced to 8 x 8 by area, as a vector: (B, C, H, W) -> (B, 64 C). Needs no weights."""
    return reduce_to_pixels(images).flatten(1)


EXTRACTORS: dict[str, FeatureExtractor] = {"pixels": pixel_features}
