"""Grow, redraw and fill in picture files: the settings of the three, and what their pipelines are given.

Result number n of a command belongs to picture n // num, and depends on the seed and on n alone.

Shape letters: N pictures, C channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal  # noqa: F401 (in which the parser resolves the types of the bases)

import torch

from ..commands.errors import UsageError
from ..data.sizes import size_text
from ..pipelines.components import check_scale_space
from ..pipelines.denoising_pipeline import DenoisingPipeline
from ..pipelines.image_to_image import SSDImageToImagePipeline
from ..pipelines.inpaint import SSDInpaintPipeline
from ..pipelines.levels import checked_level, level_to_grow_from, place_of_strength
from ..pipelines.pictures import SMALL
from ..pipelines.super_resolution import SSDSuperResolutionPipeline
from .class_settings import ClassSettings
from .given_pictures import GivenPictures, masks_for, sha256_of
from .many_images import SamplingSettings
from .outputs import OutputSettings


@dataclass(frozen=True, kw_only=True)
class EditSettings(OutputSettings, SamplingSettings, ClassSettings, ABC):
    """What the three have in common.

    Parameters
    ----------
    image : str
        A picture, or a folder of pictures, of any kind that training reads.
    num : int
        The number of results of each picture.
    grid : str, optional
        Write a PNG file with a row for each picture: itself, and its results (at most the first 1024).
    """

    image: str
    num: int = 1

    @property
    @abstractmethod
    def pipeline(self) -> type[DenoisingPipeline]:
        """The pipeline that does it."""

    @abstractmethod
    def inputs(self, pipeline: DenoisingPipeline, given: GivenPictures) -> EditInputs:
        """What the pipeline is given; a `UsageError` for settings that do not fit the model."""


@dataclass(frozen=True)
class EditInputs:
    """Pictures at the size at which they enter, and everything else that decides.

    Attributes
    ----------
    images : torch.Tensor
        (N, C, h, w) in [0, 1].
    options : dict
        Arguments of the pipeline that are the same for all.
    notes : list of str
    masks : torch.Tensor, optional
        (N, 1, H, W).
    """

    images: torch.Tensor
    options: dict[str, Any]
    notes: list[str]
    masks: torch.Tensor | None = None

    def arguments(self, numbers: Sequence[int], num: int) -> dict[str, Any]:
        """Those of the pipeline for results of these numbers."""
        rows = [number // num for number in numbers]
        masks = {} if self.masks is None else {"mask_image": self.masks[rows]}
        return {"image": self.images[rows], **masks, **self.options}

    @property
    def shown(self) -> torch.Tensor:
        """The pictures in [-1, 1] for people, with grey where they are drawn anew."""
        images = self.images * 2 - 1
        return images if self.masks is None else torch.where(self.masks == 1, 0.0, images)

    @cached_property
    def decisive(self) -> dict[str, Any]:
        """What decides over the pixels of the results."""
        tensors = [self.images] if self.masks is None else [self.images, self.masks]
        return {"pictures": sha256_of(tensors), **self.options}


@dataclass(frozen=True, kw_only=True)
class GrowSettings(EditSettings):
    """Settings of "grow": small pictures grow to the model's size.

    Parameters
    ----------
    level : int, optional
        The level at which they enter, 1 for the second finest. Default: the nearest to the first picture's size.
    factor : float, optional
        How many times larger the results are, instead of --level.
    consistency : bool
        Whether the result, downsampled again, is the picture.
    """

    level: int | None = None
    factor: float | None = None
    consistency: bool = True

    @property
    def pipeline(self) -> type[DenoisingPipeline]:
        return SSDSuperResolutionPipeline

    def inputs(self, pipeline: DenoisingPipeline, given: GivenPictures) -> EditInputs:
        first = given.pictures[0]
        try:
            scheduler = check_scale_space(pipeline.scheduler, "grow")
            level = level_to_grow_from(scheduler, (first.height, first.width), self.level, self.factor)
        except (TypeError, ValueError) as error:
            raise UsageError(f"grow does not fit this model: {error}") from error
        size = scheduler.resolutions[level]
        images, notes = given.fitted(pipeline.unet.config.in_channels, size, SMALL)
        entry = f"The pictures enter at level {level}, {size_text(size)}."
        return EditInputs(images, {"level": level, "consistency": self.consistency}, [entry, *notes])


@dataclass(frozen=True, kw_only=True)
class RedrawSettings(EditSettings):
    """Settings of "redraw": pictures are drawn anew, with what they are at a level, or at a share of the chain.

    Parameters
    ----------
    level : int, optional
        Keep what they are at this level, such as 1 for the second finest. Default: 1, without --strength.
    strength : float, optional
        Instead of a level: the share of the chain that is left, in [0, 1]; 1 keeps next to nothing.
    consistency : bool, optional
        Whether the result, downsampled to the level, is the picture there. Default: with --level.
    """

    level: int | None = None
    strength: float | None = None
    consistency: bool | None = None

    @property
    def pipeline(self) -> type[DenoisingPipeline]:
        return SSDImageToImagePipeline

    def inputs(self, pipeline: DenoisingPipeline, given: GivenPictures) -> EditInputs:
        level = 1 if self.level is None and self.strength is None else self.level
        try:
            if level is not None and self.strength is not None:
                raise ValueError(f"give --level or --strength, not both, got {level} and {self.strength:g}.")
            scheduler = check_scale_space(pipeline.scheduler, "redraw")
            if level is not None:
                entry = checked_level(scheduler, level)
            else:
                chain = [*scheduler.timesteps.tolist(), -1]
                entry = scheduler.process.level(chain[place_of_strength(len(chain) - 1, self.strength or 0.0)])
            if self.consistency and entry == 0:
                raise ValueError("--consistency keeps the whole picture at level 0: give a coarser --level.")
        except (TypeError, ValueError) as error:
            raise UsageError(f"redraw does not fit this model: {error}") from error
        images, notes = given.fitted(pipeline.unet.config.in_channels, scheduler.resolutions[0])
        consistency = bool(level) if self.consistency is None else self.consistency
        return EditInputs(images, {"level": level, "strength": self.strength, "consistency": consistency}, notes)


@dataclass(frozen=True, kw_only=True)
class InpaintSettings(EditSettings):
    """Settings of "inpaint": what is white in a mask is drawn anew.

    Parameters
    ----------
    mask : str
        A picture, white where the pictures are drawn anew, for all of them; or a folder with one of the same name for
        each.
    resampling_steps : int
        How often every step is taken, so that new parts fit better; 1 is the fastest.
    """

    mask: str
    resampling_steps: int = 1

    @property
    def pipeline(self) -> type[DenoisingPipeline]:
        return SSDInpaintPipeline

    def inputs(self, pipeline: DenoisingPipeline, given: GivenPictures) -> EditInputs:
        if self.resampling_steps < 1:
            raise UsageError(f"--resampling_steps must be at least 1, got {self.resampling_steps}.")
        try:
            size = check_scale_space(pipeline.scheduler, "inpaint").resolutions[0]
        except TypeError as error:
            raise UsageError(f"inpaint does not fit this model: {error}") from error
        images, notes = given.fitted(pipeline.unet.config.in_channels, size)
        masks = masks_for(given, self.mask, size)
        return EditInputs(images, {"resampling_steps": self.resampling_steps}, notes, masks)
