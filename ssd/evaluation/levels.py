"""The model's predictions of the clean image at every level, and the data at the same resolution.

When sampling leaves a level, the network's last prediction there is its best account of the image at that
resolution. Its distance to the data, reduced by the model's own operator, says at which level images go wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..operators.sizes import Size
from ..schedulers.base import ProcessScheduler


def level_ends(scheduler: ProcessScheduler) -> dict[Size, int]:
    """Where the chain predicts at every coarser level for the last time, fine to coarse: the last timestep there.

    The finest level ends in the image. A level at which the chain has a single state ends in that.
    """
    full = scheduler.size_at(-1)
    ends: dict[Size, int] = {}
    for t in scheduler.timesteps.tolist():
        size, s = scheduler.prediction_size(t), scheduler.previous_timestep(t)
        if size != full:
            ends[size] = s if scheduler.size_at(s) == size else t
    return dict(sorted(ends.items(), reverse=True))


class LevelRecorder:
    """A pipeline callback that keeps the last prediction of D_s x_0 at every level."""

    def __init__(self) -> None:
        self.predictions: dict[Size, torch.Tensor] = {}

    def __call__(self, pipeline: Any, index: int, timestep: int, tensors: dict[str, torch.Tensor]) -> dict:
        prediction = tensors["pred_original_sample"]
        self.predictions[prediction.shape[-2], prediction.shape[-1]] = prediction
        return {}


class LevelReduction:
    """Full pictures (B, C, H, W) -> D_s x_0, as an image, by a scheduler's process; can be sent to worker processes.

    Parameters
    ----------
    scheduler : ProcessScheduler
    timestep : int
        s, the timestep of the reduced images.
    """

    def __init__(self, scheduler: ProcessScheduler, timestep: int) -> None:
        self.kind = type(scheduler)
        self.config = dict(scheduler.config)
        self.switches = scheduler.switches
        self.timestep = timestep
        self._degrade: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._scale = 1.0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if self._degrade is None:
            scheduler = self.kind.from_config(self.config)
            scheduler.use_switches(self.switches)
            self._degrade = scheduler.process.operator(-1, self.timestep).forward
            self._scale = scheduler.process.image_scale(self.timestep)
        return self._degrade(images) / self._scale

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_degrade": None}
