"""How alike the samples of two denoisers are, and how like the images that each learned.

Shape letters: B samples, N images.
"""

from __future__ import annotations

from typing import Any

import torch

from ..denoisers.similarity import cosines, off_diagonal, paired_cosines

QUANTILES = (0.1, 0.5, 0.9)


def quantiles(values: torch.Tensor) -> list[float]:
    """The quantiles .1, .5 and .9."""
    return [float(value) for value in torch.quantile(values.double(), torch.tensor(QUANTILES, dtype=torch.float64))]


def likeness(
    samples: tuple[torch.Tensor, torch.Tensor], train: tuple[torch.Tensor, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Cosines of two denoisers' samples and training images.

    Parameters
    ----------
    samples : tuple of two torch.Tensor
        (B, C, H, W), B at least 2, sample i of both from the same noise.
    train : tuple of two torch.Tensor
        (N, C, H, W).

    Returns
    -------
    dict
        Quantiles of cosines: `pair` of samples from the same noise; `nearest` and `nearest_second` of a sample of the
        first and the second denoiser and the training image that is most like it; all also `_uncentred`.
        `different_seeds` is the median for samples from different noise.
    dict
        `pair`, (B,), and `nearest`, (B,), centred, for histograms; `nearest_index`, (2, B), in each training set.
    """
    found: dict[str, Any] = {}
    arrays: dict[str, torch.Tensor] = {}
    for ending, centred in (("_uncentred", False), ("", True)):
        pair = paired_cosines(*samples, centred=centred)
        to_train = [cosines(drawn, images, centred).max(dim=1) for drawn, images in zip(samples, train)]
        found[f"pair{ending}"] = quantiles(pair)
        found[f"nearest{ending}"], found[f"nearest_second{ending}"] = (quantiles(one.values) for one in to_train)
        arrays = {
            "pair": pair,
            "nearest": to_train[0].values,
            "nearest_index": torch.stack([one.indices for one in to_train]),
        }
    found["different_seeds"] = float(off_diagonal(cosines(*samples)).median())
    return found, arrays


def data_likeness(halves: tuple[torch.Tensor, torch.Tensor]) -> tuple[dict[str, float], torch.Tensor]:
    """The same for real images: medians for random pairs of the two halves and for the closest pairs; the closest."""
    matrix = cosines(*halves)
    closest = matrix.amax(dim=1)
    return {"data_random_pairs": float(matrix.median()), "data_closest_pairs": float(closest.median())}, closest
