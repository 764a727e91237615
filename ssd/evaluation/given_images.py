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
from ..data.held_out import hold_out
from ..operators.sizes import Size
from ..pipeline_ssd import SSDPipeline
from ..pipeline_vdvae import VDVAEPipeline, from_grey_levels, to_grey_levels
from ..sampling.many_images import default_batch_size, pixels_per_call
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
    num_valid : int
        Only the images that training with this --num_valid held out. 0 takes all.
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
    num_valid: int = 0
    num: int = 2000
    seed: int = 0
    batch_size: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        for name, low in (("num_valid", 0), ("num", 2), ("seed", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"--{name} must be at least {low}, got {value}.")

    def open(
        self, pipeline: SSDPipeline | VDVAEPipeline, part: int = 0, parts: int = 1, grey_levels: int = 256
    ) -> NumberedImages:
        """The images, or every `parts`-th of them from number `part` on, as the model takes them.

        Raises
        ------
        UsageError
            For a stream, which has no length; and for data without classes where the model needs them.
        """
        if isinstance(pipeline, VDVAEPipeline):
            network, size, labelled = pipeline.vdvae, pipeline.vdvae.config.sample_size, False
            batch_size = pixels_per_call(pipeline.device) // size**2
        else:
            network, size = pipeline.unet, pipeline.scheduler.size_at(-1)
            labelled, batch_size = bool(network.config.num_class_embeds), default_batch_size(pipeline)
        dataset, drawn = self.choose(size, network.config.in_channels, labelled)
        at_once = self.batch_size or max(1, batch_size)
        return NumberedImages(dataset, drawn[part::parts], at_once, pipeline.device, labelled, grey_levels)

    def choose(self, size: int | Size, channels: int, labelled: bool = False) -> tuple[ImageDataset, list[int]]:
        """The data at this size, and the numbers of the images, ascending; raises the errors of `open`."""
        given: dict[str, Any] = {"preset": self.crop_preset, "split": self.split}
        chosen = {name: value for name, value in given.items() if value is not None}
        dataset = open_dataset(self.data, size, labels=labelled, channels=channels, **chosen)
        if self.num_valid:
            _, dataset = hold_out(dataset, self.num_valid)
        if not isinstance(dataset, ImageDataset):
            raise UsageError(f"--data {self.data} is a stream: give data with a length, such as prepared:DIR.")
        count = min(self.num, len(dataset))
        return dataset, sorted(numpy_generator(self.seed, "given images").choice(len(dataset), count, False).tolist())


@dataclass(frozen=True)
class ImageBatch:
    """A part of the images.

    Attributes
    ----------
    x_0 : torch.Tensor
        (B, C, H, W), float32 in [-1, 1], values of the grey levels, on the model's device.
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
    grey_levels : int
        To which they are rounded, evenly over the range. 256: 8 bits.
    """

    dataset: ImageDataset
    numbers: list[int]
    batch_size: int
    device: torch.device
    labelled: bool
    grey_levels: int = 256

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[ImageBatch]:
        start = 0
        for batch in DataLoader(Subset(self.dataset, self.numbers), self.batch_size):
            levels = self.grey_levels
            x_0 = from_grey_levels(to_grey_levels(batch["image"], levels), levels).to(self.device)
            numbers = self.numbers[start : start + len(x_0)]
            start += len(x_0)
            yield ImageBatch(x_0, numbers, batch["label"].tolist() if self.labelled else None)
