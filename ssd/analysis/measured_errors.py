"""The covariance of a network's errors where the level changes, and the model and images that it is measured on.

Shape letters: C channels; n_s the pixels of x_s.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm.auto import tqdm

from ..commands.errors import UsageError
from ..evaluation.denoising import Denoiser
from ..evaluation.given_images import GivenImages, NumberedImages
from ..operators.sizes import Size
from ..publishing.saving import load_pipeline
from ..seeding import torch_generator
from .measured_images import MeasuredImages

OpenedModel = tuple[Denoiser, NumberedImages]


def open_model(model: str, num: int, settings: MeasuredImages) -> OpenedModel:
    """A pipeline as a denoiser, and `num` images of the settings' data as it takes them.

    Raises
    ------
    UsageError
        When the model has other levels than the settings, or blur.
    """
    given = GivenImages(
        model=model,
        data=settings.data,
        split=settings.split,
        crop_preset=settings.crop_preset,
        num=num,
        seed=settings.seed,
    )
    pipeline = load_pipeline(model)
    denoiser = Denoiser(pipeline)
    _check_levels(denoiser, settings.sizes, settings.downsample_kernel)
    if pipeline.unet.config.in_channels != settings.channels:
        raise UsageError(
            f"The model has {pipeline.unet.config.in_channels} channels, got --channels {settings.channels}."
        )
    return denoiser, given.open(pipeline)


def _check_levels(denoiser: Denoiser, sizes: Sequence[Size], kernel: str) -> None:
    own, config = list(denoiser.process.resolution.resolutions), denoiser.scheduler.config
    if own != list(sizes):
        raise UsageError(
            f"The model's levels are {own}, those of --res and --levels are {list(sizes)}: give the same ones, each "
            "half of the one before."
        )
    if config.downsample_kernel != kernel or config.blur_sigma_max or config.level_gain != 1:
        raise UsageError(
            f"The model has downsample_kernel={config.downsample_kernel}, blur_sigma_max={config.blur_sigma_max} and "
            f"level_gain={config.level_gain}: give its kernel; blur_sigma_max must be 0, and level_gain 1."
        )


def error_covariance(denoiser: Denoiser, images: NumberedImages, t: int, seed: int = 0) -> torch.Tensor:
    """E[e e^T] of e = D_s x_0 - x_hat, s = t - 1, averaged over channels: what R is for a perfect network.

    Parameters
    ----------
    denoiser : Denoiser
    images : NumberedImages
        Best of images that the network has not learned from, and more than pixels.
    t : int
    seed : int
        Of the noise: that of an image depends on the seed, t and the image's number alone.

    Returns
    -------
    torch.Tensor
        (n_s, n_s), float64.
    """
    total, count = torch.zeros(()), 0
    for batch in tqdm(images, desc=f"errors at t = {t}", unit=" batches", delay=2):
        generators = [torch_generator(seed, "error noise", t, number) for number in batch.numbers]
        errors = denoiser.error(batch.x_0, t - 1, t, generators, batch.labels).double().cpu()
        rows = errors.flatten(2).flatten(0, 1)  # (B C, n_s)
        total, count = total + rows.T @ rows, count + len(rows)
    return total / count
