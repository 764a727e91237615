"""`npz:PATH`: an array of 8-bit pictures, RGB or grey, in a NumPy archive, or alone in a .npy file."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ...commands.errors import UsageError
from ...operators.sizes import Size
from ..dataset import PixelDataset
from ..decoding import with_channels
from ..labels import number_labels
from ..request import DataRequest
from ..sizes import CHANNELS

IMAGES = ("images", "arr_0")
LABELS = ("labels", "arr_1")
"""Our names of the arrays, and those of guided-diffusion, which `np.savez` gives to arrays without names."""


class NpzImages(PixelDataset):
    """Pictures from the array `images` (or `arr_0`), uint8, (N, H, W, 3) or (N, H, W, 1), or from a .npy file.

    They are held in memory. An archive may have `labels` (or `arr_1`), (N,), integers from 0. Classes without images
    are left out, the others are numbered without gaps and keep their own numbers as names.
    """

    def __init__(self, request: DataRequest) -> None:
        self.images, self._original_labels = read_archive(Path(request.path))
        labels, classes = None, None
        if self._original_labels is not None:
            labels, classes = number_labels(self._original_labels, request.spec, asked=request.num_classes)
        super().__init__(request, len(self.images), request.without_splits(), labels, classes)

    def pixels(self, index: int) -> np.ndarray:
        stored = self.images[index]
        picture = Image.fromarray(stored[..., 0] if stored.shape[-1] == 1 else stored)
        return self.cropped(index, with_channels(picture, self.request.channels), self.image_name(index))

    def header_sizes(self) -> Iterable[Size]:
        return [(self.images.shape[1], self.images.shape[2])] * self.count

    def image_name(self, index: int) -> str:
        return f"{Path(self.request.path).name}[{index}]"

    def content_hash(self) -> str:
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        if self._original_labels is not None:
            digest.update(self._original_labels.astype("<i8").tobytes())
        return digest.hexdigest()


def read_archive(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The images of an npz or npy file and the labels if it has them, checked.

    Returns
    -------
    np.ndarray, np.ndarray or None
        Images, uint8, (N, H, W, 3) or (N, H, W, 1), N at least 1; labels, integers, (N,), none below 0.
    """
    if not path.is_file():
        raise UsageError(f"The file {path} does not exist: give npz:PATH with an array 'images' in it.")
    try:
        arrays = load_arrays(path)
    except UsageError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise UsageError(f"{path} is not a complete npz archive ({error}): write it again.") from error
    except ValueError as error:
        raise UsageError(f"{path} cannot be read as plain arrays ({error}).") from error
    name = next(name for name in IMAGES if name in arrays)
    images = arrays[name]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in CHANNELS or len(images) == 0:
        raise UsageError(
            f"{name!r} in {path} must be uint8 of shape (N, H, W, 3), or (N, H, W, 1) for grey, with N >= 1, "
            f"got {images.dtype} {images.shape}."
        )
    label_name = next((name for name in LABELS if name in arrays), None)
    if label_name is not None:
        _check_labels(label_name, arrays[label_name], len(images), path)
    return images, None if label_name is None else arrays[label_name]


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file that hold images and labels; of a .npy file its one array, as `images`."""
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return {"images": loaded}
    with loaded as archive:
        if not set(IMAGES) & set(archive.files):
            raise UsageError(f"{path} has no array 'images' (or 'arr_0'), only {archive.files}: rename it.")
        return {name: archive[name] for name in IMAGES + LABELS if name in archive.files}


def _check_labels(name: str, labels: np.ndarray, count: int, path: Path) -> None:
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise UsageError(
            f"{name!r} in {path} must be integers >= 0 of shape ({count},), one per image, "
            f"got {labels.dtype} {labels.shape}."
        )
