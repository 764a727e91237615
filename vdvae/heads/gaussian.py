"""A discretised normal distribution per channel, from its mean and its log scale.

log(Phi(b) - Phi(a)) is taken in the tail where both are small: with b' = min(b, -a), a' = min(a, -b),
it is log Phi(b') + log(1 - exp(log Phi(a') - log Phi(b'))).
"""

from __future__ import annotations

import torch

from ..precision import at_least_float32
from .pixels import MIN_LOG_SCALE, Pixels, inside_unit


class GaussianHead:
    """Independent channels; the parameters are C means and C log scales. See `Head`."""

    def __init__(self, in_channels: int, pixels: Pixels) -> None:
        self.num_parameters, self.num_uniforms = 2 * in_channels, in_channels
        self.pixels = pixels

    def log_prob(self, parameters: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        mean, log_scale = self._split(parameters)
        levels = self.pixels.level(images)
        distance, inverse_scale = self.pixels.centre(levels, mean.dtype) - mean, (-log_scale).exp()
        lower = (distance - self.pixels.half_width) * inverse_scale
        upper = (distance + self.pixels.half_width) * inverse_scale
        inside = _log_mass(lower, upper)
        inside = torch.where(levels == 0, torch.special.log_ndtr(upper), inside)
        inside = torch.where(levels == self.pixels.levels - 1, torch.special.log_ndtr(-lower), inside)
        return inside.sum(dim=1)

    def sample(self, parameters: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        mean, log_scale = self._split(parameters)
        x = mean + log_scale.exp() * torch.special.ndtri(inside_unit(uniforms.to(mean.dtype)))
        return self.pixels.value(self.pixels.nearest(x))

    def _split(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_scale = at_least_float32(parameters).chunk(2, dim=1)
        return mean, log_scale.clamp_min(MIN_LOG_SCALE)


def _log_mass(lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """log(Phi(upper) - Phi(lower)) for lower < upper, also far out in either tail."""
    log_upper = torch.special.log_ndtr(torch.minimum(upper, -lower))
    log_lower = torch.special.log_ndtr(torch.minimum(lower, -upper))
    return log_upper + torch.log((-torch.expm1(log_lower - log_upper)).clamp_min(torch.finfo(lower.dtype).tiny))
