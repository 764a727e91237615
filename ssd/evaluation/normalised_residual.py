"""What a network has learned beyond a linear filter: its error over that of the best linear estimate, level by level.

The estimate knows of the data their mean colour and one variance per level (`ssd.process.preconditioning`). Both
predict the same images from the same noisy states, and both are clipped as in sampling. 1 is no better than the filter.
The ratio does not depend on the sampler, and makes levels of very different noise comparable. Ours.
"""

from __future__ import annotations

import copy
from collections import defaultdict

import torch
from tqdm.auto import tqdm

from ..process.preconditioning import DataMoments
from ..process.scale_space import ScaleSpaceProcess
from ..seeding import torch_generator
from .calibrate import timesteps_of
from .denoising import Denoiser
from .given_images import NumberedImages

TIMESTEPS_PER_LEVEL = 8


def normalised_residuals(
    denoiser: Denoiser, images: NumberedImages, moments: DataMoments, seed: int = 0
) -> dict[str, float]:
    """The ratio of the squared errors: for every level its mean over timesteps, and for every change of the level.

    Parameters
    ----------
    denoiser : Denoiser
    images : NumberedImages
        Best of images that the network has not learned from.
    moments : DataMoments
        Of the data, at the sizes of the denoiser's process.
    seed : int
        Of the noise: that of an image depends on the seed, the timestep and the image's number alone.

    Returns
    -------
    dict
        "32 x 32" -> ratio, finest first; then "16 x 16 -> 32 x 32" -> ratio.
    """
    process = copy.copy(denoiser.process)
    process.moments = moments
    levels = range(len(process.resolution.resolutions))
    todo = [t for level in levels for t in timesteps_of(process, level, TIMESTEPS_PER_LEVEL)]
    todo += process.required_timesteps
    sums = torch.zeros(len(todo), 2, dtype=torch.float64)
    with tqdm(total=len(images) * len(todo), desc="residuals", unit=" predictions") as progress:
        for batch in images:
            for row, t in enumerate(todo):
                generators = [torch_generator(seed, "residual noise", t, number) for number in batch.numbers]
                x_t = denoiser.noisy(batch.x_0, t, generators)
                both = denoiser.prediction(x_t, t - 1, t, batch.labels), _linear(denoiser, process, x_t, t)
                errors = [denoiser.error_of(clean, batch.x_0, t - 1).double().square().sum() for clean in both]
                sums[row] += torch.stack(errors).cpu()
                progress.update(len(batch.x_0))
    ratios = defaultdict(list)
    for t, (own, of_linear) in zip(todo, sums.tolist()):
        ratios[_name(process, t)].append(own / of_linear)
    return {name: sum(values) / len(values) for name, values in ratios.items()}


def _linear(denoiser: Denoiser, process: ScaleSpaceProcess, x_t: torch.Tensor, t: int) -> torch.Tensor:
    """The linear estimate of the clean image at the level of t - 1, clipped as the network's."""
    estimate = process.conversion("preconditioned", x_t, t, t - 1).offset
    assert estimate is not None  # of other predictions alone
    limit = denoiser.scheduler.config.clip_sample_range if denoiser.scheduler.config.clip_sample else torch.inf
    return estimate.clamp(-limit, limit)


def _name(process: ScaleSpaceProcess, t: int) -> str:
    sizes = [f"{height} x {width}" for height, width in (process.size(t), process.size(t - 1))]
    return " -> ".join(sizes) if t in process.required_timesteps else sizes[0]
