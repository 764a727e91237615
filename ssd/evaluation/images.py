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
from ..data.files import Listing, is_picture_name, skipped_notes
from ..data.readers.npz import read_archive
from ..operators.sizes import Size
from ..sampling.pictures import to_uint8


class PictureFiles(Dataset):
    """Image files, in the order given, as a viewer shows them over white; items are (H, W, C) uint8 arrays.

    Parameters
    ----------
    files : sequence of pathlib.Path
    channels : {3, 1}
        C, 3 for RGB, 1 for grey.
    """

    def __init__(self, files: Sequence[Path], channels: int = 3) -> None:
        self.files = list(files)
        self.channels = channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        file = self.files[index]
        try:
            with Image.open(file) as image:
                return np.atleast_3d(np.array(decode(image, channels=self.channels).picture))
        except PILLOW_ERRORS as error:
            raise UsageError(f"Cannot read the image {file} ({error}): replace or remove it.") from None


class ReferencePictures(Dataset):
    """A data set of `ssd.data`, rounded to 8 bits as generated images are; items are (H, W, C) uint8 arrays.

    Parameters
    ----------
    dataset : ImageDataset
        Items are dicts of `image`, (C, H, W) float32 in [-1, 1].
    change : callable, optional
        Applied to (1, C, H, W) in [-1, 1] before rounding, such as a reduction to a coarser level.
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


class PictureArray(Dataset):
    """Images of one size in an array (N, H, W, C), uint8; items are (H, W, C) uint8 arrays."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.channels = int(pixels.shape[-1])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.pixels[index]


def list_pictures(path: str | Path, in_colour: bool = False) -> tuple[PictureFiles | PictureArray, Size, list[str]]:
    """All images below a folder, or in a .npz or .npy file as `npz:` reads it; they must have one size.

    Hidden files are skipped; others that are neither images nor called so are skipped with a warning.

    Parameters
    ----------
    path : str or pathlib.Path
    in_colour : bool
        Read images that are all stored as grey with three equal channels rather than with one.

    Returns
    -------
    pictures : PictureFiles or PictureArray
        Files sorted by path.
    size : (height, width)
    warnings : list of str
        On JPEG files, on mixed formats, on files that are not plain RGB (transparency, EXIF orientation, more than 8
        bits), and on what was skipped.

    Raises
    ------
    UsageError
        For a folder that is missing or empty, one image only, a file that is called an image but is not one, and
        mixed sizes.
    """
    root = Path(path)
    if root.suffix in (".npz", ".npy"):
        pixels, _ = read_archive(root)
        _check_count(len(pixels), root)
        in_colour = in_colour and pixels.shape[-1] == 1
        return PictureArray(pixels.repeat(3, axis=-1) if in_colour else pixels), pixels.shape[1:3], []
    if not root.is_dir():
        raise UsageError(f"The image folder {root} does not exist: give --images a folder of PNG files.")
    listing = Listing(root)
    headers = {name: header for name in listing.names if (header := _header(root / name)) is not None}
    skipped = skipped_notes([name for name in listing.names if name not in headers])
    if not headers:
        raise UsageError(" ".join([f"The image folder {root} is empty: put PNG files in it.", *skipped]))
    _check_count(len(headers), root)
    first, size = next((name, header.size) for name, header in headers.items())
    for name, header in headers.items():
        other = header.size
        if other != size:
            raise UsageError(
                f"The images have different sizes: {first} is {size[1]} x {size[0]} and {name} is "
                f"{other[1]} x {other[0]}; measure one size at a time."
            )
    grey = all(header.is_grey for header in headers.values()) and not in_colour
    return (
        PictureFiles([root / name for name in headers], channels=1 if grey else 3),
        size,
        [
            *(f"{root}: {note}" for note in listing.notes + skipped),
            *_warnings(root, list(headers.values())),
        ],
    )


def _check_count(count: int, root: Path) -> None:
    if count == 1:
        raise UsageError(f"{root} holds one image: a covariance needs at least 2.")


GREY_MODES = ("1", "L", "LA", "La")
"""Pillow's modes without colour, beside the deep ones."""


class Header(NamedTuple):
    """What an image file says before its pixels are read; the size is (height, width), after turning."""

    size: Size
    format: str
    has_alpha: bool
    is_turned: bool
    is_deep: bool
    is_grey: bool


def _header(file: Path) -> Header | None:
    """What an image file says of itself, None if it is neither an image nor called so."""
    try:
        with Image.open(file) as image:
            width, height = upright_size(image)
            turned = orientation_of(image) != 1
            alpha, deep = image.has_transparency_data, is_deep(image)
            return Header((height, width), str(image.format), alpha, turned, deep, deep or image.mode in GREY_MODES)
    except UnidentifiedImageError:
        if not is_picture_name(file.name):
            return None
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
            warnings.append(f"{number} of {len(headers)} images in {root} have {what}; write RGB or grey of 8 bits.")
    return warnings


def open_reference_data(
    spec: str,
    size: int | Sequence[int],
    crop_preset: str | None = None,
    split: str | None = None,
    channels: int = 3,
) -> ImageDataset:
    """Open a reference data set; `crop_preset` and `split` go to `open_dataset` when they are given.

    Raises
    ------
    UsageError
        Also for data that can only be streamed: they have no length and no numbered images.
    """
    given: dict[str, Any] = {"preset": crop_preset, "split": split}
    dataset = open_dataset(
        spec, size, channels=channels, **{name: value for name, value in given.items() if value is not None}
    )
    if not isinstance(dataset, ImageDataset):
        raise UsageError(f"--ref {spec} is a stream without numbered images: prepare a copy of it first.")
    return dataset
