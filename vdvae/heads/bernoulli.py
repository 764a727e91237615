"""Black and white pixels: a Bernoulli distribution per channel, from its logit."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..precision import at_least_float32
from .pixels import Pixels


class BernoulliHead:
    """Independent channels of 2 levels; the parameters are their logits. See `Head`."""

    def __init__(self, in_channels: int, pixels: Pixels) -> None:
        if pixels.levels != 2:
            raise ValueError(f"likelihood bernoulli needs levels=2, got {pixels.levels}.")
        self.num_parameters = self.num_uniforms = in_channels
        self.pixels = pixels

    def log_prob(self, parameters: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        logits = at_least_float32(parameters)
        target = self.pixels.level(images).to(logits.dtype)
        return -F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(dim=1)

    def sample(self, parameters: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        return self.pixels.value((uniforms < torch.sigmoid(at_least_float32(parameters))).long())
