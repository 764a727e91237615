"""Pictures smaller than --res in a run: what --small_images asks for, where it can be had.

With y a picture at the size of the finest level l that it fills, in place of D_l x_0,

    x_t = a_t D_{l -> level(t)} y + sigma_t z,    target D_{l -> level(s)} y,    s = t - 1,

has all that a route needs whose target is of level l or coarser, and no other route can have the picture. Routes are
drawn as ever; the images of a batch are drawn from those that fill its finest level. So the loss of a level is the mean
over the pictures that have this level, and the weights of the levels among each other stay as they are. Ours.
"""

from __future__ import annotations

from ..commands.errors import UsageError
from ..data import ImageStream
from ..data.dataset import ImageDataset, PixelDataset
from ..data.mixed_sizes import without_enlarging
from .build import level_sizes
from .config import TrainConfig


def own_sizes(config: TrainConfig, dataset: ImageDataset | ImageStream) -> ImageDataset:
    """The data set with pictures at the sizes of the levels that they fill, or without the small ones.

    Raises
    ------
    UsageError
        Where this cannot be had: of streams, of data without pictures, and with processes of another kind.
    """
    asked = f"--small_images {config.small_images}"
    if not isinstance(dataset, PixelDataset):
        what = "a stream" if isinstance(dataset, ImageStream) else "made up at any size"
        raise UsageError(
            f"{asked} needs pictures whose sizes are known when the run begins, and {config.data} is {what}: use "
            "upscale, or the pictures as folder:PATH."
        )
    if config.small_images == "levels" and (config.process != "scale_space" or config.blur_sigma_max):
        which = "--blur_sigma_max" if config.process == "scale_space" else f"--process {config.process}"
        raise UsageError(
            f"{asked} needs levels that are the picture made smaller and no more, which {which} changes: use skip or "
            "upscale."
        )
    return without_enlarging(dataset, level_sizes(config), config.small_images)
