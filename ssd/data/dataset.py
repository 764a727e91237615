"""What all data sets share, and those with a length: 8-bit pixels to tensors, labels, bad images, provenance.

B images in a batch, C channels, H x W pixels.
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ..commands.errors import UsageError, printable
from ..operators.sizes import Size
from .conversions import Conversion, PictureFlags, conversion_notes
from .decoding import Decoded
from .labels import Classes
from .reading import ReadError, UnreadableImage, read_picture, without_advice
from .request import DataRequest
from .transforms import fills, pixels_to_tensor

logger = logging.getLogger("ssd")

Item = dict[str, "torch.Tensor | int"]


class ImageData(Dataset[Item], ABC):
    """The facts of a data set, with a length or streamed. A subclass supplies `content_hash`.

    Items are dicts of `image` (C, H, W), float32 in [-1, 1], and `label` (int) where the data have labels.

    Parameters
    ----------
    request : DataRequest
    split : str
        Proper name of the split.
    count : int, optional
        Number of images, where it is known.
    classes : Classes, optional
        Where the data have labels.

    Attributes
    ----------
    num_classes : int or None
        Number of classes, where the data have labels.
    class_names : list of str or None
        Names of the classes 0..num_classes-1: the data's own names, or their own numbers as text.
    opening_notes : list of str
        What people should know: what was passed over, and which classes have no image.
    """

    def __init__(self, request: DataRequest, split: str, count: int | None, classes: Classes | None = None) -> None:
        self.request = request
        self.size = request.size
        self.split = split
        self.count = count
        self.num_classes: int | None = None
        self.class_names: list[str] | None = None
        self.opening_notes: list[str] = []
        self._bad: dict[str, str] = {}
        if classes is not None:
            self.set_classes(classes)

    def set_classes(self, classes: Classes) -> None:
        """Say which classes there are."""
        self.num_classes, self.class_names = len(classes.names), classes.names
        self.opening_notes += classes.notes

    @abstractmethod
    def content_hash(self) -> str:
        """Changes when the data change, as far as that can be seen."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What a statistics file writes down; see `DataRequest.provenance`."""
        return self.request.provenance(self.split, self.count, self._content_hash, self.num_classes)

    @cached_property
    def _content_hash(self) -> str:
        return self.content_hash()

    @property
    def bad_images(self) -> list[str]:
        """Names of the images that this copy of the data set found unreadable and replaced or left out."""
        return list(self._bad)

    counts_own_reads = True
    """Whether `conversion_counts` are those of this process alone; else they are the same on every process."""

    def conversion_counts(self) -> dict[str, int]:
        """Numbers of pictures that this process and its workers have read, in all and by kind of conversion.

        The keys are "read", "turned", "composited", "scaled", "greyed" and "enlarged". Empty for data without pictures.
        """
        return {}

    def conversion_notes(self) -> list[str]:
        """What decoding has changed in the pictures read so far, a sentence for each kind; see `decoding.decode`."""
        return conversion_notes(self.conversion_counts(), self.request.background)

    def note_bad(self, name: str, reason: str) -> None:
        """Remember an unreadable image, and say so once."""
        if name not in self._bad:
            self._bad[name] = reason
            logger.warning("skipping unreadable image %d: %s", len(self._bad), printable(without_advice(reason)))


class ImageDataset(ImageData):
    """Images by index; what trains exactly the same after an interruption.

    Attributes
    ----------
    levels : np.ndarray or None
        (count,), where images have the sizes of several levels: the level of each, 0 the size asked for. None where
        all have that size. See `ssd.data.mixed_sizes`.
    """

    count: int
    levels: np.ndarray | None = None

    def __len__(self) -> int:
        return self.count


class PixelDataset(ImageDataset):
    """Images of 8 bits by index. A subclass supplies `pixels`, `image_name` and `content_hash`.

    With `skip_bad_images` an unreadable image is replaced by the next readable one, so that the item of an index never
    depends on what was read before; each is logged once and listed in `bad_images`. Worker processes have their own
    copies of the data set, and so their own lists.

    Parameters
    ----------
    request : DataRequest
    count : int
        Number of images.
    split : str
        Proper name of the split.
    labels : np.ndarray, optional
        (count,), integers, the numbers of the classes.
    classes : Classes, optional
    """

    def __init__(
        self,
        request: DataRequest,
        count: int,
        split: str,
        labels: np.ndarray | None = None,
        classes: Classes | None = None,
    ) -> None:
        super().__init__(request, split, count, classes)
        self.labels = labels
        self._bad_indices: set[int] = set()
        self._usable: np.ndarray | None = None
        self.conversions = PictureFlags(count)
        if request.preset.celeba_box is not None:
            self.read(0)  # a box that does not fit these pictures is noticed now

    @abstractmethod
    def pixels(self, index: int) -> np.ndarray:
        """The image (H, W, C), uint8. Raises `UnreadableImage`."""

    @abstractmethod
    def image_name(self, index: int) -> str:
        """Where an image came from, relative to the data set."""

    def header_sizes(self) -> Iterable[Size | UnreadableImage]:
        """(height, width) of every picture as a viewer shows it, from its header alone, or why it cannot be read.

        Raises
        ------
        UsageError
            For data whose pictures have no size of their own.
        """
        raise UsageError(
            f"{self.request.spec} does not say how large its pictures are: --small_images levels and skip are for "
            "folder, celeba, imagenet, npz and hub. Use upscale."
        )

    def picture_sizes(self) -> np.ndarray:
        """`header_sizes` as an array (count, 2), 0 x 0 for pictures that are unreadable and to be skipped."""
        sizes = np.zeros((self.count, 2), dtype=np.int64)
        for index, found in enumerate(self.header_sizes()):
            if not isinstance(found, UnreadableImage):
                sizes[index] = found
            elif self.request.skip_bad_images:
                self.note_bad_index(index, str(found))
            else:
                raise found
        return sizes

    def at_size(self, size: Size, usable: np.ndarray) -> PixelDataset:
        """The same images at another size; of these only the `usable` ones, (count,), bool, replace unreadable ones."""
        other = copy.copy(self)
        other.size, other._usable = size, usable
        return other

    @property
    def bad_images(self) -> list[str]:
        """Names of the images that this copy of the data set found unreadable and replaced, in their order."""
        return [self.image_name(index) for index in sorted(self._bad_indices)]

    def __getitem__(self, index: int) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """The items of a batch at once, which is what a `DataLoader` asks for: one conversion for all of them."""
        pixels = np.empty((len(indices), *self.size, self.request.channels), dtype=np.uint8)
        used = [self._read_into(pixels[row], index) for row, index in enumerate(indices)]
        images = pixels_to_tensor(pixels)
        if self.labels is None:
            return [{"image": image} for image in images]
        return [{"image": image, "label": int(self.labels[index])} for image, index in zip(images, used)]

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Pixels (H, W, C), uint8, and the index they come from: another one if that image is skipped."""
        if not -self.count <= index < self.count:
            raise IndexError(f"index {index} of a data set of {self.count} images")
        for candidate in (position % self.count for position in range(index, index + self.count)):
            if candidate in self._bad_indices or not (self._usable is None or self._usable[candidate]):
                continue
            try:
                return self.pixels(candidate), candidate
            except UnreadableImage as error:
                if not self.request.skip_bad_images:
                    raise
                self.note_bad_index(candidate, str(error))
        raise ReadError(f"None of the {self.count} images of {self.request.spec} can be read.")

    def decoded(self, index: int, open_image: Callable[[], Image.Image], name: str) -> np.ndarray:
        """Pixels of a picture file, decoded, cropped and resized, with its conversions noted: for `pixels`."""
        return self.cropped(index, read_picture(open_image, name, self.request.background, self.request.channels), name)

    def cropped(self, index: int, decoded: Decoded, name: str) -> np.ndarray:
        """Pixels of a decoded picture, cropped and resized, with its conversions noted: for `pixels`."""
        enlarged = Conversion(0) if fills(decoded.picture.size[::-1], self.size) else Conversion.ENLARGED
        self.conversions.note(index, decoded.conversions | enlarged)
        return self.request.preset.apply(decoded.picture, self.size, name)

    def conversion_counts(self) -> dict[str, int]:
        return self.conversions.counts()

    def note_bad_index(self, index: int, reason: str) -> None:
        """Skip an image from now on, and say so once."""
        self._bad_indices.add(index)
        self.note_bad(self.image_name(index), reason)

    def _read_into(self, row: np.ndarray, index: int) -> int:
        row[...], used = self.read(index)
        return used
