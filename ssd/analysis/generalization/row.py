"""One row of the study: two denoisers of N images each, for one seed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..denoisers.denoising import decibels, function_distance, psnr
from ..denoisers.images import split
from .config import StudyConfig
from .diffusion_models import model_pair
from .likeness import data_likeness, likeness
from .linear import linear_pair
from .networks import network_pair
from .pair import DenoiserPair, Two

PAIRS: dict[str, Callable[[StudyConfig, Two, float, int, str], DenoiserPair]] = {
    "bf_unet": network_pair,
    "linear": linear_pair,
    "ssd": model_pair,
}
"""--denoiser -> (settings, training images, mean of all images, seed, name of the row) -> two denoisers."""

COMPARED = 5000
"""At most so many real images of each half are compared."""

SHOWN = 8
"""Samples of every row in the picture."""


def row_name(size: int, seed: int) -> str:
    """As files are called."""
    return f"n{size}_seed{seed}"


def make_row(
    config: StudyConfig, images: torch.Tensor, size: int, seed: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train, or fit, and measure.

    Parameters
    ----------
    config : StudyConfig
    images : torch.Tensor
        All images of the study, (count, C, H, W), float32, in [0, 1].
    size : int
        N.
    seed : int

    Returns
    -------
    dict
        The row, for study.json.
    dict
        Arrays: the cosines behind the histograms, and pictures.
    """
    started = cpu_seconds()
    images = images.double() if config.denoiser == "linear" else images
    chosen = split(len(images), size, seed)
    train = (images[chosen.train[0]], images[chosen.train[1]])
    test = (images[chosen.test[0]], images[chosen.test[1]])
    pair = PAIRS[config.denoiser](config, train, float(images.mean()), seed, row_name(size, seed))
    alike, arrays = likeness(pair.samples, train)
    halves = split(len(images), len(images) // 2, seed).train
    data, closest = data_likeness((images[halves[0][:COMPARED]], images[halves[1][:COMPARED]]))
    row = {"n": size, "seed": seed} | denoising(pair, train, test, seed) | alike | data | pair.about
    row["cpu_seconds"] = cpu_seconds() - started
    kept = {"pair": arrays["pair"], "nearest": arrays["nearest"], "closest": closest} | pictures(pair, train, arrays)
    return row, {name: value.numpy().astype(np.float32) for name, value in kept.items()}


def cpu_seconds() -> float:
    """Of this process so far, and of the commands that it ran."""
    return sum(os.times()[:4])


def denoising(pair: DenoiserPair, train: Two, test: Two, seed: int) -> dict[str, Any]:
    """Errors on images that were learned and on those that were not, and the distance of the two functions.

    The images of the function distance are the test images of both: no denoiser has learned those of its own test, and
    both have learned none unless N is so large that it reaches the last images of a half.
    """
    repeated = [images[torch.arange(len(test[0])) % len(images)] for images in train]
    on_train = [psnr(one, pair.probes(images, seed)) for one, images in zip(pair.denoise, repeated)]
    on_test = [psnr(one, pair.probes(images, seed)) for one, images in zip(pair.denoise, test)]
    probes = pair.probes(torch.cat(test), seed)
    train_mean, test_mean = np.mean(on_train, axis=0), np.mean(on_test, axis=0)
    return {
        "sigma": [probe.sigma for probe in probes],
        "psnr_noisy": [decibels(probe.sigma) for probe in probes],
        "psnr_train": train_mean.tolist(),
        "psnr_test": test_mean.tolist(),
        "gap": float(np.mean(train_mean - test_mean)),
        "function_distance": function_distance(*pair.denoise, probes),
    }


def pictures(pair: DenoiserPair, train: Two, arrays: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The first samples of both denoisers, each with the training image that is most like it: (SHOWN, C, H, W) each."""
    found = {}
    for number in (0, 1):
        found[f"sample_{number}"] = pair.samples[number][:SHOWN]
        found[f"nearest_{number}"] = train[number][arrays["nearest_index"][number, :SHOWN]]
    return found
