"""Patches: the stages of Flexi-UNet see an image folded, the p x p pixels of a patch as channels of one place.

The finest stage is by far the dearest of a U-Net, and has the fewest channels. Folded, every stage has p^2 times fewer
places and can be wider at the same cost. What remains at the image's own size is thin (1 / p^2 of the width): one
convolution before the fold and two after it, without which the patches show as a weave. Ours (docs/learning.md).

Shape letters: B batch, C image channels, E channels of the finest stage, H W pixels, p pixels of a patch's side.
"""

from __future__ import annotations

from torch import nn

from .routing import Size
from .stages import zero_init


def folding_conv(channels: int, width: int, patch_size: int) -> nn.Module:
    """What an image enters through: (B, C, H, W) -> (B, E, H/p, W/p); one 3x3 convolution where p = 1."""
    conv = nn.Conv2d(channels, width // patch_size**2, kernel_size=3, padding=1)
    return conv if patch_size == 1 else nn.Sequential(conv, nn.PixelUnshuffle(patch_size))


def unfolding_conv(width: int, channels: int, patch_size: int) -> nn.Module:
    """What a prediction leaves through: (B, E, H/p, W/p) -> (B, C, H, W), at first 0; one 3x3 convolution for p = 1."""
    thin = width // patch_size**2
    last = nn.Conv2d(thin, channels, kernel_size=3, padding=1)
    zero_init(last)
    if patch_size == 1:
        return last
    first, middle = (nn.Conv2d(own, own, kernel_size=3, padding=1) for own in (width, thin))
    return nn.Sequential(first, nn.PixelShuffle(patch_size), nn.SiLU(), middle, nn.SiLU(), last)


def check_patches(patch_size: int, width: int, coarsest: Size) -> None:
    """Raise a ValueError where patches do not fit the finest stage's width or the coarsest stage's sides.

    Examples
    --------
    >>> check_patches(2, 64, (8, 8))
    >>> check_patches(2, 30, (8, 8))
    Traceback (most recent call last):
        ...
    ValueError: The finest width must be divisible by patch_size^2 = 4, got 30: the nearest that works is 32.
    """
    if patch_size < 1:
        raise ValueError(f"patch_size must be at least 1, got {patch_size}.")
    if width % patch_size**2:
        nearest = patch_size**2 * max(1, round(width / patch_size**2))
        raise ValueError(
            f"The finest width must be divisible by patch_size^2 = {patch_size**2}, got {width}: the nearest that "
            f"works is {nearest}."
        )
    if any(side % patch_size for side in coarsest):
        raise ValueError(
            f"The coarsest stage is {coarsest[0]} x {coarsest[1]} pixels, which patch_size={patch_size} does not "
            "divide: take fewer stages or smaller patches."
        )
