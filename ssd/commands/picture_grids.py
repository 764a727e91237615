"""Tensors as pictures of 8 bits, and many of them in one.

Shape letters: B images, C channels (3 for RGB, 1 for grey), H W their size.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.utils import make_grid

MIN_SIDE = 64


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """(B, C, H, W) in [-1, 1] -> (B, H, W, C) uint8, by rounding, as diffusers does."""
    scaled = ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round()
    return scaled.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()


def from_uint8(pictures: np.ndarray) -> torch.Tensor:
    """(B, H, W, C) uint8 -> (B, C, H, W), float32 in [-1, 1]; `to_uint8` gives the same pictures back."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_picture(pixels: np.ndarray) -> Image.Image:
    """Pixels (H, W, C), uint8, as a picture: RGB, or of one channel grey (mode L).

    Examples
    --------
    >>> as_picture(np.zeros((16, 8, 1), dtype=np.uint8)).mode
    'L'
    """
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def image_grid(images: torch.Tensor, columns: int | None = None) -> Image.Image:
    """A picture of (B, C, H, W) images in [-1, 1], as many rows as columns, small ones enlarged by whole factors."""
    factor = max(1, MIN_SIDE // max(images.shape[-2:]))
    enlarged = F.interpolate(images.float().cpu(), scale_factor=factor, mode="nearest")
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    grid = make_grid(enlarged, nrow=columns, padding=2, pad_value=1.0)[: images.shape[1]]  # of grey it makes RGB
    return as_picture(to_uint8(grid[None])[0])
