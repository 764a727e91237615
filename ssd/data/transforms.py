"""From a picture to a training image: crop, resize, scale to [-1, 1].

B images in a batch, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ..commands.errors import UsageError
from .reading import ReadError

ALIGNED_CELEBA = (178, 218)
"""Width and height of the pictures in `img_align_celeba`."""


def center_crop_resize(image: Image.Image, size: int) -> Image.Image:
    """The whole picture reduced until its short side is `size`, then the central square (the preset `adm`).

    Both sides are halved with BOX while the short one is at least twice the target, then resized with BICUBIC. Source:
    `center_crop_arr` of guided-diffusion (ADM), which the published SSD code uses unchanged; the same to the pixel.
    Cropping first would move the crop by up to half a pixel of the result, since the long side is rounded.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def crop_ddim128(image: Image.Image, size: int) -> Image.Image:
    """The 128 x 128 box centred at x 89, y 121 of an aligned CelebA picture, bilinear (the preset `ddim128`).

    Source: the CelebA reader of DDIM, used by DPM-Solver too.
    """
    return image.crop((89 - 64, 121 - 64, 89 + 64, 121 + 64)).resize((size, size), Image.Resampling.BILINEAR)


def crop_sde140(image: Image.Image, size: int) -> Image.Image:
    """The central 140 x 140 box of an aligned CelebA picture, bilinear with antialiasing (the preset `sde140`).

    Source: the CelebA reader of score_sde, which resizes in floating point; here the result is rounded to 8 bits.
    """
    left, top = (image.width - 140) // 2, (image.height - 140) // 2
    return image.crop((left, top, left + 140, top + 140)).resize((size, size), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Preset:
    """A named way from a picture to `size` x `size` pixels.

    Parameters
    ----------
    name : str
    transform : callable
        (8-bit RGB picture, size) -> picture of `size` x `size`.
    filter : str
        The resampling in words; written next to every statistic.
    celeba_box : int, optional
        For presets that only aligned CelebA pictures allow: the side of their box, which is also the largest `size`.
    """

    name: str
    transform: Callable[[Image.Image, int], Image.Image]
    filter: str
    celeba_box: int | None = None

    def apply(self, image: Image.Image, size: int, name: str) -> np.ndarray:
        """Pixels (size, size, 3), uint8; `name` tells errors which picture it is."""
        if self.celeba_box is not None and image.size != ALIGNED_CELEBA:
            raise ReadError(
                f"The preset {self.name} is a box in aligned CelebA pictures of 178 x 218, but {name} has "
                f"{image.width} x {image.height}: use the preset adm."
            )
        return np.asarray(self.transform(image, size))


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("adm", center_crop_resize, "box halving, then bicubic"),
        Preset("ddim128", crop_ddim128, "bilinear, antialiased", celeba_box=128),
        Preset("sde140", crop_sde140, "bilinear, antialiased", celeba_box=140),
    )
}


def find_preset(name: str, size: int) -> Preset:
    """The preset of that name, if it can make images of `size` x `size`."""
    if name not in PRESETS:
        raise UsageError(f"Unknown preset {name!r}: use one of {', '.join(PRESETS)}.")
    preset = PRESETS[name]
    if preset.celeba_box is not None and size > preset.celeba_box:
        raise UsageError(
            f"The preset {name} cuts out {preset.celeba_box} x {preset.celeba_box} pixels, fewer than the "
            f"{size} x {size} asked for: use a smaller size or the preset adm."
        )
    return preset


def pixels_to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Pixels (B, H, W, 3), uint8, as a contiguous tensor (B, 3, H, W), float32, values in [-1, 1]."""
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return planes.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)
