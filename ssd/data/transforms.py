"""From a picture to a training image: crop, resize, scale to [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image


def center_crop_resize(image: Image.Image, size: int) -> Image.Image:
    """Centre square of the short side, reduced to `size` x `size` (the ADM preset).

    The side is halved with BOX while it is at least twice the target, then resized with BICUBIC, as in
    guided-diffusion's published preprocessing, which the SSD paper uses.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    while image.width >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return image.resize((size, size), Image.Resampling.BICUBIC)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An 8-bit RGB picture as a tensor (3, H, W), float32, values in [-1, 1]."""
    array = np.array(image, dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous() / 127.5 - 1
