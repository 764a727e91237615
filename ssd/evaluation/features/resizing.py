"""From an 8-bit picture to what a network takes; runs per picture, in worker processes too, and is clean-fid's."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import numpy as np
import torch


def resize_picture(pixels: np.ndarray, resize: str) -> torch.Tensor:
    """One picture as a network takes it.

    Parameters
    ----------
    pixels : np.ndarray
        (H, W, 3), or (H, W, 1) for grey, uint8.
    resize : {"clean", "legacy_pytorch", "clean_224", "none"}
        clean-fid's resizer to 299 x 299 (PIL bicubic in float; torch bilinear without antialias), or the first of them
        to 224 x 224, which make RGB of grey; or none.

    Returns
    -------
    torch.Tensor
        (3, H', W'), float32 in [0, 255]; not resized, with the channels that there are.
    """
    if resize == "none":
        resized = pixels.astype(np.float32)
    else:
        resized = _resizer(resize)(pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels)
    return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))


@functools.cache
def _resizer(mode: str) -> Callable[[np.ndarray], np.ndarray]:
    """clean-fid's resizer, made where it is used: it is a closure, which spawned workers could not receive."""
    with warnings.catch_warnings():  # clean-fid switches all warnings of the process off
        from cleanfid.resize import build_resizer, make_resizer

        return make_resizer("PIL", False, "bicubic", (224, 224)) if mode == "clean_224" else build_resizer(mode)
