"""From a picture to small patches of the bands of its Laplacian pyramid, one band per scale."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ...seeding import numpy_generator

PATCH_SIDE = 7
PATCHES_PER_IMAGE = 8
SMALLEST_SIDE = 4


def laplacian_pyramid(images: torch.Tensor) -> dict[int, torch.Tensor]:
    """Bands of (B, C, H, W) by their shorter side, fine to coarse; what is lost at every halving, and the last rest.

    The picture is blurred with the binomial filter (1, 4, 6, 4, 1) / 16 and every second pixel is kept (Burt and
    Adelson, 1983), while both sides are even and their halves at least 4 pixels. The bands, each enlarged and added to
    the next finer one, give the picture back exactly.
    """
    bands = {}
    while images.shape[-1] % 2 == 0 and images.shape[-2] % 2 == 0 and min(images.shape[-2:]) >= 2 * SMALLEST_SIDE:
        half = _blur(images)[..., ::2, ::2]
        bands[min(images.shape[-2:])] = images - enlarge(half)
        images = half
    bands[min(images.shape[-2:])] = images
    return bands


def enlarge(images: torch.Tensor) -> torch.Tensor:
    """Twice the side, by the same filter: (B, C, H, W) -> (B, C, 2H, 2W)."""
    wide = torch.zeros(*images.shape[:-2], 2 * images.shape[-2], 2 * images.shape[-1], dtype=images.dtype)
    wide[..., ::2, ::2] = 4 * images
    return _blur(wide)


def image_patches(pixels: np.ndarray, index: int) -> dict[int, np.ndarray]:
    """8 random patches of every band of one picture.

    Parameters
    ----------
    pixels : np.ndarray
        (H, W, C), uint8.
    index : int
        Number of the picture: the places of the patches depend on it alone.

    Returns
    -------
    dict
        Shorter side of the band -> (8, C p q), float32, p and q 7 or the band's side if it is smaller; the picture in
        [-1, 1].
    """
    image = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    generator = numpy_generator(0, "patches", index)
    patches = {}
    for side, band in laplacian_pyramid(image).items():
        height, width = (min(PATCH_SIDE, length) for length in band.shape[-2:])
        tops = generator.integers(0, band.shape[-2] - height + 1, PATCHES_PER_IMAGE)
        lefts = generator.integers(0, band.shape[-1] - width + 1, PATCHES_PER_IMAGE)
        rows = [band[0, :, top : top + height, left : left + width].flatten() for top, left in zip(tops, lefts)]
        patches[side] = torch.stack(rows).numpy()
    return patches


def _blur(images: torch.Tensor) -> torch.Tensor:
    """The binomial filter in both directions, edges mirrored."""
    channels = images.shape[1]
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=images.dtype) / 16
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    rows = F.conv2d(padded, line.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)
    return F.conv2d(rows, line.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)
