"""Pictures that pipelines are given, as tensors of the model's channels and of the size that is asked for.

Shape letters: N pictures, C channels, h w their own size, H W the size asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..data.decoding import decode
from ..operators.sizes import Size

Picture = Image.Image | np.ndarray | torch.Tensor
Pictures = Picture | Sequence[Picture]
"""One picture or several: PIL's; arrays (h, w, C) or (N, h, w, C); tensors (C, h, w) or (N, C, h, w); or a list."""

SMALL = "bilinear"
"""How pictures are resized to grow: as the process does, whose small pictures are softer than bicubic ones."""

TOLERANCE = 1e-3
"""How far numbers may leave [0, 1], by rounding; they are clipped."""


def read_pictures(pictures: Pictures, channels: int, name: str = "image") -> list[torch.Tensor]:
    """Every picture as a tensor (C, h, w), float32 in [-1, 1].

    A picture of PIL is read as `ssd.data.decoding.decode` reads files: turned upright, over white, in 8 bits, grey or
    RGB as the model is. Numbers are taken as diffusers takes them: floats in [0, 1], integers of 8 bits in 0..255.

    Raises
    ------
    TypeError
        For anything that is not a picture.
    ValueError
        For other shapes, channels or values; `name` is the argument's.

    Examples
    --------
    >>> [picture.shape for picture in read_pictures(Image.new("RGB", (3, 2)), channels=1)]
    [torch.Size([1, 2, 3])]
    """
    if isinstance(pictures, (list, tuple)):
        found = [read for picture in pictures for read in read_pictures(picture, channels, name)]
        if not found:
            raise ValueError(f"{name} holds no picture.")
        return found
    if isinstance(pictures, Image.Image):
        return [_read_pil(pictures, channels, name)]
    if isinstance(pictures, np.ndarray):
        pictures = torch.from_numpy(pictures[..., None] if pictures.ndim == 2 else pictures)
        pictures = pictures.movedim(-1, -3) if pictures.ndim in (3, 4) else pictures
    if not isinstance(pictures, torch.Tensor):
        raise TypeError(f"{name} must be PIL pictures, arrays or tensors, got {type(pictures).__name__}.")
    if pictures.ndim not in (3, 4) or pictures.shape[-3] != channels or not pictures.numel():
        raise ValueError(
            f"{name} must have {channels} channels, as arrays (N, h, w, {channels}) or tensors (N, {channels}, h, w), "
            f"got a shape of {tuple(pictures.shape)} with channels first: PIL's pictures are converted."
        )
    return list(_scaled(pictures, name).reshape(-1, *pictures.shape[-3:]))


def fitted(pictures: Sequence[torch.Tensor], size: Size, mode: str = "bicubic") -> tuple[torch.Tensor, int]:
    """Pictures (C, h, w) as (N, C, H, W), and how many of them were resized.

    One of another size is enlarged or reduced, antialiased, until it just covers the size, and its middle is cut out;
    `mode` is "bicubic" or "bilinear", of `torch.nn.functional.interpolate`.
    """
    resized = sum(tuple(picture.shape[-2:]) != size for picture in pictures)
    return torch.stack([_covering(picture, size, mode) for picture in pictures]), resized


def read_masks(masks: Pictures, size: Size, name: str = "mask_image") -> torch.Tensor:
    """Masks as (N, 1, H, W), 1 where they are white, from the middle between black and white on, else 0.

    Resized as pictures are, so that a mask of the size of its picture stays on its place.
    """
    return (fitted(read_pictures(masks, 1, name), size)[0] >= 0).float()


def _covering(picture: torch.Tensor, size: Size, mode: str) -> torch.Tensor:
    if tuple(picture.shape[-2:]) == size:
        return picture
    scale = max(wanted / there for wanted, there in zip(size, picture.shape[-2:]))
    covers = [max(wanted, round(there * scale)) for wanted, there in zip(size, picture.shape[-2:])]
    large = F.interpolate(picture[None], size=covers, mode=mode, antialias=True)[0].clamp(-1, 1)
    top, left = ((cover - wanted) // 2 for cover, wanted in zip(covers, size))
    return large[..., top : top + size[0], left : left + size[1]]


def _read_pil(picture: Image.Image, channels: int, name: str) -> torch.Tensor:
    if channels not in (1, 3):
        raise ValueError(f"PIL's pictures have 3 channels or 1, and the model has {channels}: give {name} as a tensor.")
    pixels = np.atleast_3d(np.asarray(decode(picture, channels=channels).picture))
    return _scaled(torch.from_numpy(pixels.copy()).movedim(-1, 0), name)


def _scaled(pixels: torch.Tensor, name: str) -> torch.Tensor:
    """8-bit numbers, or floats in [0, 1], as float32 in [-1, 1]."""
    if pixels.dtype == torch.uint8:
        return pixels.float() / 127.5 - 1
    low, high = (float(value) for value in pixels.aminmax())
    if not pixels.is_floating_point() or not (low >= -TOLERANCE and high <= 1 + TOLERANCE) or math.isnan(low):
        raise ValueError(
            f"{name} must hold floats in [0, 1] or 8-bit integers, got {pixels.dtype} in {low:.4g}..{high:.4g}."
        )
    return pixels.float().clamp(0, 1) * 2 - 1
