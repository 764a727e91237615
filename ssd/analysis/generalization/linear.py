"""Linear denoisers: Wiener filters fitted to N images. Nothing is trained, and every number is exact.

A sample is one of the Gaussian that such a filter is the best denoiser of, x = m + C^1/2 z with the symmetric root of
the biased covariance; the same z for both.
"""

from __future__ import annotations

import numpy as np
import torch

from ..denoisers.denoising import noise_probes
from ..denoisers.exact import GaussianDenoiser
from .config import StudyConfig
from .pair import DenoiserPair, Two


def linear_pair(config: StudyConfig, train: Two, mean: float, seed: int, name: str) -> DenoiserPair:
    """Fit two linear denoisers; `mean` and `name` do not matter to them."""
    first, second = (GaussianDenoiser.fitted(images.double()) for images in train)
    shape = train[0].shape[1:]
    noise = np.random.default_rng(seed + 1).standard_normal((config.samples, shape.numel()))
    z = torch.from_numpy(noise).view(config.samples, *shape)
    return DenoiserPair((first, second), (first.sample(z), second.sample(z)), noise_probes)
