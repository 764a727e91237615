"""Images of a data set that a model is asked about: which ones, at its own size, in batches.

Shape letters: B images, C channels; H W the model's full resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from ..commands.errors import UsageError
from ..data import open_dataset
from ..data.dataset import ImageDataset
from ..pipeline_ssd import SSDPipeline
from ..sampling.many_images import default_batch_size
from ..sampling.pictures import from_uint8, to_uint8
from ..seeding import numpy_generator


@dataclass(frozen=True, kw_only=True)
class GivenImages:
    """Settings of a command that shows images to a model.

    Parameters
    ----------
    model : str
        The folder of a pipeline, such as a training run's --out.
    data : str
        A data set, best of images that the network has not learned from.
    split : str, optional
        The part of the data. Default: the data set's, which is the training split.
    crop_preset : str, optional
        How pictures are cropped and resized, such as adm. Default: the data set's.
    num : int
        The number of images, drawn at random; all if there are fewer.
    seed : int
        The seed of that draw and of the noise.
    batch_size : int, optional
        Images per call of the network. The default suits the device.
    device : str, optional
        The device: cpu, cuda, and so on. The default is the accelerator if there is one, else the CPU.
    """

    model: str
    data: str
    split: str | None = None
    crop_preset: str | None = None
    num: int = 2000
    seed: int = 0
    batch_size: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        for name, low in (("num", 2), ("seed", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"--{name} must be at least {low}, got {value}.")

    def open(self, pipeline: SSDPipeline, part: int = 0, parts: int = 1) -> NumberedImages:
        """The images, or every `parts`-th of them from number `part` on, as the model takes them.

        Raises
        ------
        UsageError
            For a stream, which has no length; and for data without classes where the model needs them.
        """
        unet = pipeline.unet
        given: dict[str, Any] = {"preset": self.crop_preset, "split": self.split}
        dataset = open_dataset(
            self.data,
            pipeline.scheduler.size_at(-1),
            labels=bool(unet.config.num_class_embeds),
            channels=unet.config.in_channels,
            **{name: value for name, value in given.items() if value is not None},
        )
        if not isinstance(dataset, ImageDataset):
            raise UsageError(f"--data {self.data} is a stream: give data with a length, such as prepared:DIR.")
        count = min(self.num, len(dataset))
        drawn = sorted(numpy_generator(self.seed, "given images").choice(len(dataset), count, replace=False).tolist())
        batch_size = self.batch_size or default_batch_size(pipeline)
        labelled = bool(unet.config.num_class_embeds)
        return NumberedImages(dataset, drawn[part::parts], batch_size, pipeline.device, labelled)


@dataclass(frozen=True)
class ImageBatch:
    """A part of the images.

    Attributes
    ----------
    x_0 : torch.Tensor
        (B, C, H, W), float32 in [-1, 1], values of 8 bits, on the model's device.
    numbers : list of int
        Their numbers in the data set.
    labels : list of int or None
        Their classes, for class-conditional models.
    """

    x_0: torch.Tensor
    numbers: list[int]
    labels: list[int] | None


@dataclass(frozen=True)
class NumberedImages:
    """Images that can be gone through again and again, batch by batch.

    Attributes
    ----------
    dataset : ImageDataset
    numbers : list of int
        Which of its images.
    batch_size : int
    device : torch.device
    labelled : bool
    """

    dataset: ImageDataset
    numbers: list[int]
    batch_size: int
    device: torch.device
    labelled: bool

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[ImageBatch]:
        start = 0
        for batch in DataLoader(Subset(self.dataset, self.numbers), self.batch_size):
            x_0 = from_uint8(to_uint8(batch["image"])).to(self.device)
            numbers = self.numbers[start : start + len(x_0)]
            start += len(x_0)
            yield ImageBatch(x_0, numbers, batch["label"].tolist() if self.labelled else None)
