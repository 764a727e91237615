"""Training batches of VDVAE: images in whole grey levels, with the noise of their latents.

Images come in the order of `ssd.training.images`. Everything random about one (its flip, and the noise of all its
latents) is a function of the seed and its number.

Shape letters: B images of this process, C channels, S the image's side, Z latent channels, R the side of a state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...data import ImageStream
from ...data.dataset import ImageDataset
from ...pipeline_vdvae import to_grey_levels
from ...seeding import random_words, uniform
from ..images import START, OrderedImages, Plan, Position, own_normals
from ..run_config import RunConfig, images_per_batch
from .config import VDVAETrainConfig

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class VDVAEBatch:
    """One batch of this process.

    Attributes
    ----------
    images : torch.Tensor
        (B, C, S, S), int64, whole grey levels, on the device.
    noise : list of torch.Tensor
        Standard normals of every cell applied, (B, Z, R, R), float32, on the device.
    end : Position
        Where the run is after this batch.
    seconds_waited : float
        For the images.
    """

    images: torch.Tensor
    noise: list[torch.Tensor]
    end: Position
    seconds_waited: float

    def split(self, most: int | None) -> list[VDVAEBatch]:
        """The same images in parts of at most `most`, as equal as possible; the whole batch for None."""
        count = 1 if most is None else -(-len(self.images) // most)
        noise = zip(*(each.tensor_split(count) for each in self.noise))
        return [
            replace(self, images=images, noise=list(part))
            for images, part in zip(self.images.tensor_split(count), noise)
        ]


class VDVAEBatches(Iterator[VDVAEBatch]):
    """Endless batches, from any position.

    Parameters
    ----------
    config : VDVAETrainConfig
    dataset : ImageDataset or ImageStream
    latent_shapes : sequence of (Z, R, R)
        Of the model.
    start : Position
    rank, world_size : int
        This process, and their number.
    device : torch.device
    """

    def __init__(
        self,
        config: VDVAETrainConfig,
        dataset: ImageDataset | ImageStream,
        latent_shapes: Sequence[Shape],
        start: Position = START,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        device = torch.device(device)
        self._config, self._shapes = config, latent_shapes
        self._generator = torch.Generator(device)
        plans = equal_plans(config, start, rank, world_size)
        self._images = OrderedImages(config, dataset, plans, start, rank, world_size, device)

    def __next__(self) -> VDVAEBatch:
        loaded = next(self._images)
        words = random_words(self._config.seed, "image", loaded.plan.numbers)
        x_0 = self._images.mirrored(loaded.x_0, uniform(words[:, 0]))
        return VDVAEBatch(
            images=to_grey_levels(x_0, self._config.input_levels or self._config.levels),
            noise=latent_noise(words[:, 3], self._shapes, self._generator),
            end=loaded.plan.end,
            seconds_waited=loaded.seconds_waited,
        )


def latent_noise(words: np.ndarray, shapes: Sequence[Shape], generator: torch.Generator) -> list[torch.Tensor]:
    """Standard normals of every cell, (B, Z, R, R), each image's from a 64-bit word of its own."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    parts = own_normals(words, (sum(sizes),), generator).split(sizes, dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes)]


def equal_plans(config: RunConfig, position: Position, rank: int, world_size: int) -> Iterator[Plan]:
    """The plans of the batches of process `rank` from `position` on, all of one size."""
    size = images_per_batch(config, world_size)
    while True:
        first = position.images + rank * size
        position = Position(position.batches + 1, position.images + world_size * size)
        yield Plan(range(first, first + size), position)
