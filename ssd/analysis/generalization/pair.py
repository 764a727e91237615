"""Two denoisers that learned different images, whatever their kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..denoisers.denoising import Denoise, Probe

Two = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class DenoiserPair:
    """What a row of the study asks.

    Attributes
    ----------
    denoise : tuple of two callables
    samples : tuple of two torch.Tensor
        (B, C, H, W), in the scale of [0, 1], sample i of both from the same noise.
    probes : callable
        (images (B, C, H, W), seed) -> noisy images for these denoisers.
    about : dict
        What else the row says, such as `diverged`, how many samples of each left the range of images.
    """

    denoise: tuple[Denoise, Denoise]
    samples: Two
    probes: Callable[[torch.Tensor, int], list[Probe]]
    about: dict[str, Any] = field(default_factory=dict)
