"""The mixture of logistics exactly as the published checkpoints were trained and sampled with.

It differs from `LogisticMixtureHead` in this: where the probability of an interval is at most 1e-5, it is taken as its
width times the density at its centre. With 32 levels the centres are 8 / 127.5 apart but the intervals 2 / 31 wide, and
the last level never takes the upper tail: the probabilities of a pixel sum to 1.0871, which is 0.040 bits per
dimension too good. Sampling goes on with the colour that was drawn, not with its level, and cuts decimals off instead
of rounding.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .logistic_mixture import LogisticMixtureHead
from .pixels import Pixels

SMALL_PROBABILITY = 1e-5
EDGE = 0.999
"""Centres beyond this take the tail."""


class PublishedLogisticMixtureHead(LogisticMixtureHead):
    """The published mixture for images of 256 levels, of which 256 or 32 are modelled; see `Head`."""

    def __init__(self, in_channels: int, num_mixtures: int, pixels: Pixels) -> None:
        super().__init__(in_channels, num_mixtures, pixels)
        if in_channels != 3 or pixels.input_levels != 256 or pixels.levels not in (256, 32):
            raise ValueError(
                'likelihood_compat="published" needs 3 channels, input_levels=256 and levels of 256 or 32; got '
                f"{in_channels}, {pixels.input_levels} and {pixels.levels}."
            )

    def target(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Images -> [-1, 1]; with 32 levels after their last three bits were set to zero."""
        step = self.pixels.input_levels // self.pixels.levels
        return ((images.long() // step * step).to(dtype) - 127.5) / 127.5

    def log_bin(self, x: torch.Tensor, means: torch.Tensor, log_scales: torch.Tensor) -> torch.Tensor:
        """Log of what stands for the probability of the interval around x, per component."""
        inverse_scale, centred, half_width = (-log_scales).exp(), x - means, self.pixels.half_width
        upper, lower = inverse_scale * (centred + half_width), inverse_scale * (centred - half_width)
        middle = inverse_scale * centred
        probability = torch.sigmoid(upper) - torch.sigmoid(lower)
        log_density = middle - log_scales - 2 * F.softplus(middle) - math.log((self.pixels.levels - 1) / 2)
        inside = torch.where(probability > SMALL_PROBABILITY, probability.clamp_min(1e-12).log(), log_density)
        log_first, log_last = upper - F.softplus(upper), -F.softplus(lower)
        return torch.where(x < -EDGE, log_first, torch.where(x > EDGE, log_last, inside))

    def snap(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(-1, 1)

    def to_values(self, x: torch.Tensor) -> torch.Tensor:
        return ((x + 1) * 127.5).long()
