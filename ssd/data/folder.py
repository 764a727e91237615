"""`folder:PATH`: every picture below a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..errors import UsageError
from .transforms import center_crop_resize, to_tensor


class ImageFolder(Dataset):
    """Pictures of any format that Pillow reads, recursively, in sorted order, without labels.

    Hidden files (names that begin with a dot) are skipped; any other file that is no picture is an error, so
    that a wrong folder is noticed before a long training. Items are dicts of `image` (3, size, size), float32
    in [-1, 1]: centre-cropped, resized as in guided-diffusion.

    Raises
    ------
    UsageError
        For a folder that is missing or empty, and for a file that is no image.
    """

    def __init__(self, root: str | Path, size: int) -> None:
        self.size = size
        self.files = find_files(Path(root))
        for file in tqdm(self.files, desc="checking images", unit=" images", delay=2):
            open_image(file).close()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        file = self.files[index]
        try:
            with open_image(file) as image:
                return {"image": to_tensor(center_crop_resize(image.convert("RGB"), self.size))}
        except OSError as error:
            raise UsageError(f"Cannot read the image {file} ({error}): replace or remove it.") from error


def find_files(root: Path) -> list[Path]:
    """All files below `root` that are not hidden, sorted by path."""
    if not root.is_dir():
        raise UsageError(f"The data folder {root} does not exist: give folder:PATH with a folder of images.")
    files = sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not files:
        raise UsageError(f"The data folder {root} is empty: put images (PNG, JPEG, ..) in it or below it.")
    return files


def open_image(file: Path) -> Image.Image:
    """Open a picture lazily (only its header is read)."""
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        raise UsageError(f"{file} is no image: remove it from the data folder, or hide it as .{file.name}.") from None
    except OSError as error:
        raise UsageError(f"Cannot open {file} ({error.strerror or error}): make it readable or remove it.") from error
