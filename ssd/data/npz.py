"""`npz:PATH`: an array `images` of 8-bit RGB pictures in a NumPy archive."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ..errors import UsageError
from .transforms import center_crop_resize, to_tensor


class NpzImages(Dataset):
    """Pictures from the array `images`, uint8, (N, H, W, 3), held in memory.

    Items are dicts of `image` (3, size, size), float32 in [-1, 1]: centre-cropped, resized as for folders.
    """

    def __init__(self, path: str | Path, size: int) -> None:
        self.size = size
        self.images = read_images(Path(path))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": to_tensor(center_crop_resize(Image.fromarray(self.images[index]), self.size))}


def read_images(path: Path) -> np.ndarray:
    """The array `images` of an npz file, checked: uint8, (N, H, W, 3), N at least 1."""
    if not path.is_file():
        raise UsageError(f"The file {path} does not exist: give npz:PATH with an array 'images' in it.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UsageError(f"{path} is a single array, not an npz archive: save it with np.savez(.., images=..).")
            if "images" not in archive.files:
                raise UsageError(f"{path} has no array 'images', only {archive.files}: rename it.")
            images = archive["images"]
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise UsageError(f"{path} is no complete npz archive ({error}): write it again.") from error
    except ValueError as error:
        raise UsageError(f"{path} cannot be read as plain arrays ({error}).") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) == 0:
        raise UsageError(
            f"'images' in {path} must be uint8 of shape (N, H, W, 3) with N >= 1, got {images.dtype} {images.shape}."
        )
    return images
