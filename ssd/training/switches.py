"""The switches of a run with --resolution_schedule data: those it began with, or measured from its images."""

from __future__ import annotations

from dataclasses import replace

from ..analysis.switches import NUM_IMAGES, measure
from ..data import ImageStream
from ..data.dataset import ImageDataset
from ..operators.resize import resize_operator
from ..process.switches import switches_of_variance
from .build import build_scheduler, check_combinations
from .config import TrainConfig


def settle_switches(
    config: TrainConfig, dataset: ImageDataset | ImageStream, before: list[int] | None = None, silent: bool = False
) -> tuple[TrainConfig, list[str]]:
    """The settings with their switches, and a note where these were measured.

    Every process measures the same images and finds the same: those that the seed chooses, of a stream the first.

    Parameters
    ----------
    config : TrainConfig
    dataset : ImageDataset or ImageStream
        The training data.
    before : list of int, optional
        The switches that a run began with which is continued.
    silent : bool
        Show no progress bar.

    Raises
    ------
    ValueError
        For settings that do not go together, before an image is read; and for a --switch_theta that is too small.
    """
    if config.resolution_schedule != "data" or config.switches is not None:
        return config, []
    if before is not None:
        return replace(config, switches=before), []
    check_combinations(config)
    process = build_scheduler(replace(config, resolution_schedule="equal")).process  # of the same sizes and noise
    sizes = process.resolution.resolutions
    if len(sizes) == 1:
        return replace(config, switches=[]), []
    downsample = resize_operator(sizes[0], sizes[1], config.downsample_kernel)
    found = measure(dataset, downsample, NUM_IMAGES, config.seed, silent)
    switches = switches_of_variance(process.noise, found.variance, len(sizes), config.switch_theta)
    note = f"the finest details of {found.num_images} images have the variance {found.variance:.4g}: "
    return replace(config, switches=switches), [f"{note}coarser levels begin at the timesteps {switches}."]
