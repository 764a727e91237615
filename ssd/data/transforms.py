"""From a picture to a training image: crop, resize, scale to [-1, 1].

B images in a batch, H x W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ..commands.errors import UsageError
from ..operators.sizes import Size
from .reading import ReadError
from .sizes import size_text

ALIGNED_CELEBA = (178, 218)
"""Width and height of the pictures in `img_align_celeba`."""


def fills(picture: Size, size: Size) -> bool:
    """Whether a picture need not be enlarged for images of `size`; both are (height, width).

    Examples
    --------
    >>> fills((218, 178), (178, 178)), fills((218, 178), (179, 179))
    (True, False)
    """
    return picture[0] >= size[0] and picture[1] >= size[1]


def center_crop_resize(image: Image.Image, size: Size) -> Image.Image:
    """The whole picture resized until it just covers `size`, then the central box of that size (the preset `adm`).

    Both sides are halved with BOX while both are at least twice the target, then resized with BICUBIC. Source, for
    squares: `center_crop_arr` of guided-diffusion (ADM), which the published SSD code uses unchanged; the same to the
    pixel. For other boxes ours. Cropping first would move the crop by up to half a pixel of the result, since the side
    that is cut is rounded.
    """
    height, width = size
    while image.width >= 2 * width and image.height >= 2 * height:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = max(width / image.width, height / image.height)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def crop_ddim128(image: Image.Image, size: Size) -> Image.Image:
    """The 128 x 128 box centred at x 89, y 121 of an aligned CelebA picture, bilinear (the preset `ddim128`).

    Source: the CelebA reader of DDIM, used by DPM-Solver too.
    """
    return image.crop((89 - 64, 121 - 64, 89 + 64, 121 + 64)).resize(size[::-1], Image.Resampling.BILINEAR)


def crop_sde140(image: Image.Image, size: Size) -> Image.Image:
    """The central 140 x 140 box of an aligned CelebA picture, bilinear with antialiasing (the preset `sde140`).

    Source: the CelebA reader of score_sde, which resizes in floating point; here the result is rounded to 8 bits.
    """
    left, top = (image.width - 140) // 2, (image.height - 140) // 2
    return image.crop((left, top, left + 140, top + 140)).resize(size[::-1], Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Preset:
    """A named way from a picture to images of one size.

    Parameters
    ----------
    name : str
    transform : callable
        (8-bit picture, RGB or grey; (height, width)) -> picture of that size.
    filter : str
        The resampling in words; written next to every statistic.
    celeba_box : int, optional
        For presets that only aligned CelebA pictures allow: the side of their box, which is also the largest side of
        their images, which are square.
    """

    name: str
    transform: Callable[[Image.Image, Size], Image.Image]
    filter: str
    celeba_box: int | None = None

    def apply(self, image: Image.Image, size: Size, name: str) -> np.ndarray:
        """Pixels (H, W, C), uint8, with (H, W) = `size`; `name` tells errors which picture it is."""
        if self.celeba_box is not None and image.size != ALIGNED_CELEBA:
            raise ReadError(
                f"The preset {self.name} is a box in aligned CelebA pictures of 178 x 218, but {name} has "
                f"{image.width} x {image.height}: use the preset adm."
            )
        return np.atleast_3d(np.asarray(self.transform(image, size)))  # Pillow's grey has no axis of channels


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("adm", center_crop_resize, "box halving, then bicubic"),
        Preset("ddim128", crop_ddim128, "bilinear, antialiased", celeba_box=128),
        Preset("sde140", crop_sde140, "bilinear, antialiased", celeba_box=140),
    )
}


def find_preset(name: str, size: Size) -> Preset:
    """The preset of that name, if it can make images of this size."""
    if name not in PRESETS:
        raise UsageError(f"Unknown preset {name!r}: use one of {', '.join(PRESETS)}.")
    preset = PRESETS[name]
    box = preset.celeba_box
    if box is not None and size[0] != size[1]:
        raise UsageError(
            f"The preset {name} cuts out a square, but images of {size_text(size)} are asked for: use the preset adm "
            "or a square size."
        )
    if box is not None and size[0] > box:
        raise UsageError(
            f"The preset {name} cuts out {box} x {box} pixels, fewer than the {size_text(size)} asked for: use a "
            "smaller size or the preset adm."
        )
    return preset


def pixels_to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Pixels (B, H, W, C), uint8, as a contiguous tensor (B, C, H, W), float32, values in [-1, 1]."""
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return planes.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)
