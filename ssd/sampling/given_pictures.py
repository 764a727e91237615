"""Picture files for pipelines that begin with pictures: read as training reads them, and brought to one size.

Shape letters: N pictures, C channels, H W the size asked for.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from ..commands.errors import UsageError
from ..data.conversions import Conversion, conversion_notes, name_of
from ..data.files import FileList, skipped_notes
from ..data.readers.folder import list_folder, sort_out
from ..data.reading import UnreadableImage, read_picture, without_advice
from ..data.sizes import size_text
from ..operators.sizes import Size
from ..pipelines.pictures import fitted, read_masks, read_pictures

BACKGROUND = "white"


@dataclass(frozen=True)
class GivenPictures:
    """Pictures of any size, upright, in 8 bits.

    Attributes
    ----------
    names : list of str
        Below the folder that was given, or the name of the file.
    pictures : list of PIL.Image.Image
    notes : list of str
        What was changed and what was passed over, counted.
    """

    names: list[str]
    pictures: list[Image.Image]
    notes: list[str]

    def fitted(self, channels: int, size: Size, mode: str = "bicubic") -> tuple[torch.Tensor, list[str]]:
        """Pictures of `size`, (N, C, H, W) in [0, 1], and a note if some were resized; see `ssd.pipelines.pictures`."""
        images, resized = fitted(read_pictures(self.pictures, channels), size, mode)
        note = f"{resized} of {len(images)} pictures resized to {size_text(size)}, of which the middle was cut out."
        return images / 2 + 0.5, [note] if resized else []


def open_pictures(path: str, flag: str, channels: int) -> GivenPictures:
    """The picture in a file, or all below a folder, in sorted order.

    Parameters
    ----------
    path : str
    flag : str
        Its name on the command line, for messages.
    channels : {3, 1}
        Of the model.

    Raises
    ------
    UsageError
        For what is not there, is no picture or cannot be read.
    """
    files, notes = _files(Path(path), flag)
    pictures, counts = [], Counter({"read": len(files)})
    for file in files:
        try:
            decoded = read_picture(partial(Image.open, file), str(file), BACKGROUND, channels)
        except UnreadableImage as error:
            raise UsageError(f"{flag}: {without_advice(str(error))}: replace or remove it.") from error
        pictures.append(decoded.picture)
        counts.update(name_of(kind) for kind in Conversion if kind in decoded.conversions)
    names = [files.name(index) for index in range(len(files))]
    return GivenPictures(names, pictures, notes + conversion_notes(counts, BACKGROUND))


def masks_for(given: GivenPictures, path: str, size: Size) -> torch.Tensor:
    """The mask of every picture, (N, 1, H, W), 1 where it is drawn anew: one file, or a folder with the same names.

    Raises
    ------
    UsageError
        For a picture without a mask, and for a mask of another shape than its picture.
    """
    masks = open_pictures(path, "--mask", 1)
    found = masks.pictures * len(given.names) if len(masks.names) == 1 else _by_name(given.names, masks, path)
    for name, picture, mask in zip(given.names, given.pictures, found):
        if picture.width * mask.height != picture.height * mask.width:
            raise UsageError(
                f"--mask {path}: the mask of {name} is {mask.width} x {mask.height} and the picture {picture.width} x "
                f"{picture.height} (width x height): a mask needs the shape of its picture."
            )
    return read_masks(found, size, "--mask")


def sha256_of(tensors: Iterable[torch.Tensor]) -> str:
    """One hash of the numbers of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _files(path: Path, flag: str) -> tuple[FileList, list[str]]:
    if path.is_dir():
        listing = list_folder(path)
        files, _, skipped = sort_out(listing, path, skip_bad_images=False)
        return files, listing.notes + skipped_notes(skipped)
    if not path.is_file():
        raise UsageError(f"{flag} {path} does not exist: give a picture, or a folder of pictures.")
    return FileList(path.parent, [path.name]), []


def _by_name(names: Sequence[str], masks: GivenPictures, path: str) -> list[Image.Image]:
    """The masks in the order of the pictures, by names without their endings."""
    by_stem = {str(Path(name).with_suffix("")): mask for name, mask in zip(masks.names, masks.pictures)}
    missing = [name for name in names if str(Path(name).with_suffix("")) not in by_stem]
    if missing:
        raise UsageError(
            f"--mask {path} has no mask for {missing[0]}: give one file for all pictures, or a folder with a mask of "
            "the same name for each."
        )
    return [by_stem[str(Path(name).with_suffix(""))] for name in names]
