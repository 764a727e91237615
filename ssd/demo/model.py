"""A loaded model as the page needs it: what it can do, and one lock, since its scheduler remembers a single chain."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ..commands.errors import UsageError
from ..operators.sizes import Size
from ..pipeline_ssd import SSDPipeline
from ..pipelines.guidance import number_of_classes
from ..pipelines.image_to_image import SSDImageToImagePipeline
from ..pipelines.samplers import default_steps
from ..pipelines.super_resolution import SSDSuperResolutionPipeline
from ..process.diffusion import DiffusionProcess
from ..publishing.saving import load_pipeline
from ..sampling.pictures import CHANNELS
from .chains import usual_steps


@dataclass(frozen=True)
class DemoModel:
    """A pipeline, and the two that edit with its parts.

    Attributes
    ----------
    name : str
        What was given as --model.
    pipe : SSDPipeline
    lock : threading.Lock
        Held while the network runs.
    """

    name: str
    pipe: SSDPipeline
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        channels = self.pipe.unet.config.out_channels
        if channels not in CHANNELS:
            raise UsageError(
                f"The model gives images of {channels} channels, but pictures have 3 (RGB) or 1 (grey): the page "
                "cannot show them."
            )

    @property
    def process(self) -> DiffusionProcess:
        """The diffusion process."""
        return self.pipe.scheduler.process

    @property
    def sizes(self) -> list[Size]:
        """(height, width) of every level, finest first."""
        return self.pipe.scheduler.resolutions

    @property
    def channels(self) -> int:
        """3 for RGB, 1 for grey."""
        return int(self.pipe.unet.config.out_channels)

    @property
    def usual_steps(self) -> list[int]:
        """Steps per level that the pipeline takes by itself, finest first."""
        return usual_steps(self.pipe.scheduler, default_steps(self.pipe.scheduler))

    @property
    def class_names(self) -> list[str]:
        """The classes, by name or by number; empty for an unconditional model."""
        return self.pipe.class_names or [str(number) for number in range(number_of_classes(self.pipe.unet))]

    @property
    def edits(self) -> bool:
        """Whether pictures can grow and be redrawn: it takes several levels, whose states are known in closed form."""
        return len(self.sizes) > 1 and hasattr(self.pipe.scheduler, "switch_bands")

    def grow(self) -> SSDSuperResolutionPipeline:
        """The pipeline that enlarges small pictures."""
        return SSDSuperResolutionPipeline.from_pipe(self.pipe)

    def redraw(self) -> SSDImageToImagePipeline:
        """The pipeline that keeps what a picture is at a level."""
        return SSDImageToImagePipeline.from_pipe(self.pipe)


def open_model(name: str, device: str | None = None) -> DemoModel:
    """Load a folder or a model of the Hub; a `UsageError` for anything else."""
    return DemoModel(name, load_pipeline(name, device))
