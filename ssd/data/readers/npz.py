"""`npz:PATH`: an array `images` of 8-bit RGB pictures in a NumPy archive."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ...commands.errors import UsageError
from ..dataset import PixelDataset
from ..request import DataRequest


class NpzImages(PixelDataset):
    """Pictures from the array `images`, uint8, (N, H, W, 3), and optionally `labels`, (N,), held in memory.

    Classes are numbered from 0; their number is the largest label plus one.
    """

    def __init__(self, request: DataRequest) -> None:
        self.images, labels = read_archive(Path(request.path))
        num_classes = None if labels is None else int(labels.max()) + 1
        super().__init__(request, len(self.images), request.without_splits(), labels, num_classes)

    def pixels(self, index: int) -> np.ndarray:
        image = Image.fromarray(self.images[index])
        return self.request.preset.apply(image, self.size, self.image_name(index))

    def image_name(self, index: int) -> str:
        return f"{Path(self.request.path).name}[{index}]"

    def content_hash(self) -> str:
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def read_archive(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The array `images` of an npz file and `labels` if it has them, checked.

    Returns
    -------
    np.ndarray, np.ndarray or None
        Images, uint8, (N, H, W, 3), N at least 1; labels, int64, (N,), none below 0.
    """
    if not path.is_file():
        raise UsageError(f"The file {path} does not exist: give npz:PATH with an array 'images' in it.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UsageError(f"{path} is a single array, not an npz archive: save it with np.savez(.., images=..).")
            if "images" not in archive.files:
                raise UsageError(f"{path} has no array 'images', only {archive.files}: rename it.")
            images = archive["images"]
            labels = archive["labels"] if "labels" in archive.files else None
    except UsageError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise UsageError(f"{path} is not a complete npz archive ({error}): write it again.") from error
    except ValueError as error:
        raise UsageError(f"{path} cannot be read as plain arrays ({error}).") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) == 0:
        raise UsageError(
            f"'images' in {path} must be uint8 of shape (N, H, W, 3) with N >= 1, got {images.dtype} {images.shape}."
        )
    return images, None if labels is None else _check_labels(labels, len(images), path)


def _check_labels(labels: np.ndarray, count: int, path: Path) -> np.ndarray:
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise UsageError(
            f"'labels' in {path} must be integers >= 0 of shape ({count},), one per image, "
            f"got {labels.dtype} {labels.shape}."
        )
    return labels.astype(np.int64)
