"""Which networks and schedulers make a pipeline together."""

from __future__ import annotations

from typing import Any

from ..schedulers.base import ProcessScheduler
from ..scheduling_ssd import SSDScheduler


def check_components(unet: Any, scheduler: Any) -> None:
    """Raise an error with the way out unless the scheduler is ours and fits the network.

    They are known by what they can do: in a self-contained folder (`ssd.publishing.self_contained`) every class has a
    file of its own, and no file has the classes of another.

    Raises
    ------
    TypeError
        When the scheduler is one of diffusers.
    ValueError
        When the two do not fit.
    """
    if not hasattr(scheduler, "prediction_size"):
        raise TypeError(
            f"SSDPipeline needs an SSDScheduler, got {type(scheduler).__name__}, which never resizes: keep the "
            "pipeline's own scheduler, and call the pipeline with eta=0 for DDIM's steps or eta=1 for DDPM's."
        )
    if unet.config.in_channels != unet.config.out_channels:
        raise ValueError(
            f"The network predicts {unet.config.out_channels} channels for images of {unet.config.in_channels}: "
            "SSDPipeline needs one that predicts images, and nothing else."
        )
    sizes, name = scheduler.resolutions, type(unet).__name__
    if len(sizes) > 1 and not hasattr(unet, "working_sizes"):
        raise ValueError(
            f"A {name} cannot enlarge an image, and this scheduler has {len(sizes)} levels: use a FlexiUNet2DModel, a "
            "ResizedUNet2DModel, or SSDScheduler(num_levels=1)."
        )
    side = unet.config.sample_size
    full = sizes[0] if side is None else (side, side) if isinstance(side, int) else (side[0], side[1])
    if sizes[0] != full:
        raise ValueError(
            f"The scheduler's images are {sizes[0][0]} x {sizes[0][1]} and the network's {full[0]} x {full[1]}: build "
            f"the scheduler with sample_size={full}."
        )


def check_scale_space(scheduler: ProcessScheduler, pipeline: str) -> SSDScheduler:
    """The scheduler, if it is an `SSDScheduler`, whose states are known at every size; else a TypeError."""
    if not hasattr(scheduler, "switch_bands"):
        raise TypeError(
            f"{pipeline} needs an SSDScheduler, whose states of a given picture are known in closed form, got "
            f"{type(scheduler).__name__}: use a model of that process."
        )
    return scheduler
