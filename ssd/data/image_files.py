"""A data set of picture files: what folders, CelebA and ImageNet share."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from .dataset import PixelDataset
from .file_list import FileList
from .reading import read_rgb
from .request import DataRequest


class ImageFiles(PixelDataset):
    """Pictures of any format that Pillow reads, decoded, cropped and resized when they are asked for.

    Parameters
    ----------
    request : DataRequest
    files : FileList
    split : str
    labels, num_classes
        See `PixelDataset`.
    """

    def __init__(
        self,
        request: DataRequest,
        files: FileList,
        split: str,
        labels: np.ndarray | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.files = files
        super().__init__(request, len(files), split, labels, num_classes)

    def pixels(self, index: int) -> np.ndarray:
        file = self.files[index]
        return self.request.preset.apply(read_rgb(partial(Image.open, file), str(file)), self.size, str(file))

    def image_name(self, index: int) -> str:
        return self.files.name(index)

    def content_hash(self) -> str:
        return self.files.content_hash()
