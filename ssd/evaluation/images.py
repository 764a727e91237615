"""What is measured: files of generated images and reference data sets, all as 8-bit pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from ..commands.errors import UsageError
from ..data import open_dataset
from ..data.dataset import ImageDataset
from ..data.decoding import PILLOW_ERRORS, decode, is_deep, orientation_of, upright_size
from ..operators.sizes import Size
from ..sampling.pictures import to_uint8


class PictureFiles(Dataset):
    """Image files, in the order given, as a viewer shows them over white; items are (H, W, 3) uint8 arrays."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        file = self.files[index]
        try:
            with Image.open(file) as image:
                return np.array(decode(image).picture)
        except PILLOW_ERRORS as error:
            raise UsageError(f"Cannot read the image {file} ({error}): replace or remove it.") from None


class ReferencePictures(Dataset):
    """A data set of `ssd.data`, rounded to 8 bits as generated images are; items are (H, W, 3) uint8 arrays.

    Parameters
    ----------
    dataset : ImageDataset
        Items are dicts of `image`, (3, H, W) float32 in [-1, 1].
    change : callable, optional
        Applied to (1, 3, H, W) in [-1, 1] before rounding, such as a reduction to a coarser level.
    """

    def __init__(self, dataset: ImageDataset, change: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        self.dataset = dataset
        self.change = change

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> np.ndarray:
        image = torch.as_tensor(self.dataset[index]["image"])[None]
        return to_uint8(image if self.change is None else self.change(image))[0]

    def reduced(self, change: Callable[[torch.Tensor], torch.Tensor]) -> ReferencePictures:
        """The same pictures, changed before rounding."""
        return ReferencePictures(self.dataset, change)


def list_pictures(folder: str | Path) -> tuple[PictureFiles, Size, list[str]]:
    """All images below a folder, which must have one size; hidden files are skipped.

    Returns
    -------
    pictures : PictureFiles
        Sorted by path.
    size : (height, width)
    warnings : list of str
        On JPEG files, on mixed formats, and on files that are not plain RGB: with transparency, EXIF orientation or
        more than 8 bits.

    Raises
    ------
    UsageError
        For a folder that is missing or empty, one image only, a file that is not an image, and mixed sizes.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"The image folder {root} does not exist: give --images a folder of PNG files.")
    files = sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not files:
        raise UsageError(f"The image folder {root} is empty: put PNG files in it.")
    if len(files) == 1:
        raise UsageError(f"The image folder {root} holds one image, {files[0].name}: a covariance needs at least 2.")
    headers = [_header(files[0])]
    size = headers[0].size
    for file in files[1:]:
        headers.append(_header(file))
        other = headers[-1].size
        if other != size:
            raise UsageError(
                f"The images have different sizes: {files[0].name} is {size[1]} x {size[0]} and {file.name} is "
                f"{other[1]} x {other[0]}; measure one size at a time."
            )
    return PictureFiles(files), size, _warnings(root, headers)


class Header(NamedTuple):
    """What an image file says before its pixels are read; the size is (height, width), after turning."""

    size: Size
    format: str
    has_alpha: bool
    is_turned: bool
    is_deep: bool


def _header(file: Path) -> Header:
    try:
        with Image.open(file) as image:
            width, height = upright_size(image)
            turned = orientation_of(image) != 1
            return Header((height, width), str(image.format), image.has_transparency_data, turned, is_deep(image))
    except UnidentifiedImageError:
        raise UsageError(f"{file} is not an image: remove it from the folder, or hide it as .{file.name}.") from None
    except PILLOW_ERRORS as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"Cannot open {file} ({reason}): make it readable or remove it.") from None


def _warnings(root: Path, headers: Sequence[Header]) -> list[str]:
    """What of the files of a folder makes a distance doubtful."""
    formats = sorted({header.format for header in headers})
    warnings = []
    if "JPEG" in formats:
        warnings.append(f"{root} holds JPEG files: their artefacts move a FID by several points; write PNG.")
    if len(formats) > 1:
        warnings.append(f"{root} mixes formats ({', '.join(formats)}): write all images in the same way.")
    for number, what in (
        (sum(header.has_alpha for header in headers), "an alpha channel: they are composited over white"),
        (sum(header.is_turned for header in headers), "an EXIF orientation: they are turned by it"),
        (sum(header.is_deep for header in headers), "more than 8 bits per value: they are scaled to 8"),
    ):
        if number:
            warnings.append(f"{number} of {len(headers)} images in {root} have {what}; write RGB of 8 bits.")
    return warnings


def open_reference_data(spec: str, size: int, crop_preset: str | None = None, split: str | None = None) -> ImageDataset:
    """Open a reference data set; `crop_preset` and `split` go to `open_dataset` when they are given.

    Raises
    ------
    UsageError
        Also for data that can only be streamed: they have no length and no numbered images.
    """
    given: dict[str, Any] = {"preset": crop_preset, "split": split}
    dataset = open_dataset(spec, size, **{name: value for name, value in given.items() if value is not None})
    if not isinstance(dataset, ImageDataset):
        raise UsageError(f"--ref {spec} is a stream without numbered images: prepare a copy of it first.")
    return dataset
