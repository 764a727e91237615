"""What the analyses of VDVAE begin with: images as integers, and noise of their own.

Shape letters: B images, C channels, S the image's side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from vdvae import VDVAEModel
from vdvae.noise import draw_normals

from ..commands.errors import BrokenModel, UsageError
from ..evaluation.given_images import GivenImages
from ..pipeline_vdvae import grey_levels, to_grey_levels
from ..seeding import torch_generator


@dataclass(frozen=True)
class NumberedIntegers:
    """Images as a VDVAE takes them, that can be gone through again and again.

    Attributes
    ----------
    images : torch.Tensor
        (N, C, S, S), int64.
    numbers : list of int
        Their numbers in the data set, ascending.
    """

    images: torch.Tensor
    numbers: list[int]

    def batches(self, size: int, title: str) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """Images (B, C, S, S), int64, and their numbers, with a progress bar."""
        for start in tqdm(range(0, len(self.numbers), size), title, delay=2):
            yield self.images[start : start + size], self.numbers[start : start + size]


@dataclass(frozen=True, kw_only=True)
class VDVAEImages(GivenImages):
    """Settings of a command that shows images to a VDVAE; those of `GivenImages`."""

    num: int = 1000

    @property
    def at_once(self) -> int:
        """Images per call of the network."""
        return self.batch_size or 100

    def integers(self, model: VDVAEModel) -> NumberedIntegers:
        """The images, at the model's size.

        Raises
        ------
        UsageError
            For a stream, which has no length, and for data of one image.
        """
        dataset, drawn = self.choose(model.config.sample_size, model.config.in_channels)
        if len(drawn) < 2:
            raise UsageError(f"--data {self.data} has one image, and a spread needs two.")
        levels = grey_levels(model)
        images = [
            to_grey_levels(torch.as_tensor(dataset[number]["image"]), levels)
            for number in tqdm(drawn, "images", delay=2)
        ]
        return NumberedIntegers(torch.stack(images), drawn)


def noise_of_cells(model: VDVAEModel, numbers: Sequence[int], seed: int, purpose: str) -> list[torch.Tensor]:
    """Standard normals for every cell applied, (B, Z, R, R); those of an image depend on the seed and its number alone.

    Examples
    --------
    >>> model = VDVAEModel(4, 1, "4x1,4d2,2x1", "2x1,4m2", width=8, latent_channels=2, num_mixtures=2)
    >>> two, one = (noise_of_cells(model, numbers, 0, "doc") for numbers in ([3, 5], [5]))
    >>> [bool((a[1:] == b).all()) for a, b in zip(two, one)]
    [True, True]
    """
    generators = [torch_generator(seed, purpose, number) for number in numbers]
    like = next(model.parameters())
    return [draw_normals((len(numbers), *shape), generators, like) for shape in model.latent_shapes]


def check_finite(values: torch.Tensor, what: str) -> None:
    """Raise a `BrokenModel` where a network gave NaN or infinity."""
    if not bool(torch.isfinite(values).all()):
        raise BrokenModel(f"The network gives NaN or infinity: {what}.")
