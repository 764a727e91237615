"""Samples of a VDVAE at several temperatures, and how far their pixels are from the data's.

The distance is the squared Frechet distance between Gaussians with the mean and covariance of the pixels, in [0, 1]. It
sees means and second moments only, and with few images its bias is large: that between two halves of the data tells
how large about.

Shape letters: N images, C channels, S the image's side, D pixels that are compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm

from vdvae import VDVAEModel

from ..commands.drawing import pyplot
from ..evaluation.distances.frechet import frechet_distance
from ..evaluation.statistics import FeatureStatistics
from ..operators import haar
from ..sampling.pictures import image_grid
from ..seeding import numpy_generator, torch_generator

MOST_PIXELS = 3072
"""Larger images are halved until they have at most so many values."""

SHOWN = 16
"""Images of a row of the picture."""


@dataclass(frozen=True)
class TemperatureSamples:
    """Samples at one temperature.

    Attributes
    ----------
    temperature : float
    images : torch.Tensor
        (N, C, S, S), integers.
    distance : float
        Between their pixels and those of the data.
    """

    temperature: float
    images: torch.Tensor
    distance: float


@torch.no_grad()
def sample(model: VDVAEModel, count: int, temperature: float, seed: int, batch_size: int) -> torch.Tensor:
    """Images (N, C, S, S), integers: image i depends on (seed, i) alone, and has the same noise at all temperatures."""
    parts = []
    for start in tqdm(range(0, count, batch_size), f"temperature {temperature:g}", delay=2):
        numbers = range(start, min(start + batch_size, count))
        generators = [torch_generator(seed, "temperature samples", number) for number in numbers]
        out = model.decode(batch_size=len(numbers), temperature=temperature, generator=generators)
        parts.append(model.sample_images(out, generator=generators).cpu())
    return torch.cat(parts)


def compared_pixels(images: torch.Tensor, levels: int) -> torch.Tensor:
    """The values that are compared, (N, D), float64 in [0, 1]: pixels, or means of them for large images.

    Examples
    --------
    >>> compared_pixels(torch.tensor([[[[0, 16], [8, 16]]]]), levels=17)
    tensor([[0.0000, 1.0000, 0.5000, 1.0000]], dtype=torch.float64)
    """
    pixels = images.double() / (levels - 1)
    size = (images.shape[-2], images.shape[-1])
    halvings = next(
        (k for k in range(haar.halvings(size)) if math.prod(images.shape[1:]) <= MOST_PIXELS * 4**k),
        haar.halvings(size),
    )
    return haar.pool(pixels, halvings).flatten(1)


def pixel_distance(first: torch.Tensor, second: torch.Tensor, levels: int) -> float:
    """The squared Frechet distance between two sets of images (N, C, S, S), integers; two or more images each."""
    moments = []
    for images in (first, second):
        statistics = FeatureStatistics()
        statistics.add(compared_pixels(images, levels))
        moments += [statistics.mean, statistics.covariance]
    return frechet_distance(*moments)


def between_halves(images: torch.Tensor, levels: int, seed: int) -> float | None:
    """The distance between two random halves of the data; None for fewer than four images."""
    if len(images) < 4:
        return None
    order = torch.from_numpy(numpy_generator(seed, "halves").permutation(len(images)))
    half = len(images) // 2
    return pixel_distance(images[order[:half]], images[order[half : 2 * half]], levels)


def at_temperatures(
    model: VDVAEModel,
    data: torch.Tensor,
    levels: int,
    temperatures: Sequence[float],
    count: int,
    seed: int,
    batch_size: int,
) -> list[TemperatureSamples]:
    """Samples at every temperature, with their distance to the images `data`."""
    found = []
    for temperature in temperatures:
        images = sample(model, count, temperature, seed, batch_size)
        found.append(TemperatureSamples(temperature, images, pixel_distance(images, data, levels)))
    return found


def draw_samples(found: Sequence[TemperatureSamples], data: torch.Tensor, levels: int) -> Any:
    """A row of images of the data, and one for every temperature: the same noise in every column."""
    rows = [("data", data)]
    rows += [(f"temperature {one.temperature:g}, distance {one.distance:.3g}", one.images) for one in found]
    figure, axes = pyplot().subplots(len(rows), 1, figsize=(7, 0.68 * len(rows)), layout="constrained")
    for axis, (title, images) in zip(axes, rows):
        shown = images[:SHOWN].float() * (2 / (levels - 1)) - 1
        axis.imshow(image_grid(shown, columns=SHOWN), cmap="gray", vmin=0, vmax=255)
        axis.set_title(title, fontsize="small", pad=2)
        axis.axis("off")
    return figure
