"""Images of a model for evaluation, as 8-bit pictures.

Image i depends on (seed, i) alone. The network always runs on the same number of images at once, with copies filling up
an incomplete batch, since other batch lengths round differently in the last bits: so neither the number of
processes, nor `batch_size`, nor an interruption can change a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..operators.sizes import Size
from ..pipeline_ssd import SSDPipeline
from ..sampling.image_folder import sampling_settings
from ..sampling.many_images import SamplingSettings, draw, image_labels
from ..sampling.pictures import to_uint8
from .levels import LevelRecorder


@dataclass(frozen=True)
class Sampler:
    """Draws numbered images as 8-bit pictures.

    Parameters
    ----------
    pipeline : SSDPipeline
    settings : SamplingSettings
    network_batch : int
        Images per network call.
    num_labels : int
        Classes; 0 for an unconditional model.
    labels : {"balanced", "random"}
    guidance_scale : float
    levels : tuple of (height, width)
        Coarser levels whose last predictions are wanted too.
    """

    pipeline: SSDPipeline
    settings: SamplingSettings
    network_batch: int = 32
    num_labels: int = 0
    labels: str = "balanced"
    guidance_scale: float = 1.0
    levels: tuple[Size, ...] = ()

    @property
    def size(self) -> Size:
        """Of the images."""
        return self.pipeline.scheduler.size_at(-1)

    @property
    def channels(self) -> int:
        """Of the images: 3 for RGB, 1 for grey."""
        return self.pipeline.unet.config.out_channels

    def draw(self, indices: Sequence[int]) -> dict[Size, np.ndarray]:
        """Pictures (B, H, W, C), uint8, by their size: the images, then the last predictions at `levels`."""
        parts = [
            self._draw_padded(indices[start : start + self.network_batch])
            for start in range(0, len(indices), self.network_batch)
        ]
        return {size: np.concatenate([part[size] for part in parts]) for size in parts[0]}

    def image_labels(self, indices: Sequence[int]) -> list[int] | None:
        """The class of every image; None for an unconditional model."""
        return image_labels(indices, self.num_labels, self.labels, self.settings.seed)

    def provenance(self, model: Path) -> dict[str, Any]:
        """What decides over every pixel; written beside the images."""
        return {
            **sampling_settings(model, self.settings),
            "network_batch": self.network_batch,
            "labels": self.labels if self.num_labels else None,
            "num_labels": self.num_labels,
            "guidance_scale": self.guidance_scale,
        }

    def _draw_padded(self, indices: Sequence[int]) -> dict[Size, np.ndarray]:
        padded = [*indices, *[indices[-1]] * (self.network_batch - len(indices))]
        recorder = LevelRecorder()
        images = draw(
            self.pipeline, padded, self.settings, self.image_labels(padded), self.guidance_scale, callback=recorder
        )
        wanted = {self.size: images} | {size: recorder.predictions[size] for size in self.levels}
        return {size: to_uint8(tensor[: len(indices)]) for size, tensor in wanted.items()}
