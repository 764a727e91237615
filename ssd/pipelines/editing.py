"""What pipelines that are given pictures share: the pictures as a batch, its noise, and what they hold fast.

Shape letters: B batch, C channels, h w the size of the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.utils import logging

from ..data.sizes import size_text
from ..operators.sizes import Size
from ..process.consistency import SmallPicture
from ..process.posterior import Generators, white_noise
from .denoising import Denoising
from .denoising_pipeline import DenoisingPipeline
from .pictures import fitted

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class HeldPicture:
    """Every prediction agrees with a small picture; states are as they are drawn."""

    small: SmallPicture

    def prediction(self, x_hat: torch.Tensor, s: int) -> torch.Tensor:
        """See `SmallPicture.prediction`."""
        return self.small.prediction(x_hat, s)

    def state(self, x_s: torch.Tensor, s: int, generator: Generators) -> torch.Tensor:
        """x_s itself."""
        return x_s


class EditingPipeline(DenoisingPipeline):
    """A pipeline that begins with pictures; see `DenoisingPipeline`."""

    def _batch(
        self, pictures: Sequence[torch.Tensor], size: Size, batch_size: int | None, name: str, mode: str = "bicubic"
    ) -> torch.Tensor:
        """Pictures of `size`, (B, C, h, w), on the pipeline's device; a single one as often as is asked for."""
        batch, resized = fitted(pictures, size, mode)
        if resized:
            logger.warning(f"{resized} of {len(pictures)} pictures resized to {size_text(size)}, {name}.")
        if batch_size is not None and len(batch) not in (1, batch_size):
            raise ValueError(
                f"batch_size must be the number of pictures, {len(batch)}, or left out; a single picture may have any."
            )
        repeated = batch if batch_size is None or len(batch) == batch_size else batch.expand(batch_size, -1, -1, -1)
        return repeated.to(self._execution_device)

    def _noise(self, images: torch.Tensor, denoising: Denoising) -> torch.Tensor:
        """White noise of their shape, of every image's own generator."""
        return white_noise(images, denoising.generator)
