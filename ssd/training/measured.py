"""What a run measures of its images when it begins: switches, for --resolution_schedule data, and moments.

A run that is continued keeps what it began with, which is among its settings.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tqdm.auto import tqdm

from ..analysis.moments import data_moments
from ..analysis.switches import measure
from ..data import ImageStream
from ..data.dataset import ImageDataset
from ..data.some_images import NUM_IMAGES, some_images
from ..operators.resize import resize_operator
from ..process.scale_space import ScaleSpaceProcess
from ..process.switches import switches_of_variance
from .build import build_scheduler, check_combinations
from .config import TrainConfig

MEASURED = ("switches", "data_moments")
"""The settings with the results."""


def settle_measured(
    config: TrainConfig, dataset: ImageDataset | ImageStream, before: dict[str, Any], silent: bool = False
) -> tuple[TrainConfig, list[str]]:
    """The settings with what the images say, and notes where it was measured.

    Every process measures the same images and finds the same: those that the seed chooses, of a stream the first.

    Parameters
    ----------
    config : TrainConfig
    dataset : ImageDataset or ImageStream
        The training data.
    before : dict
        Settings of the run that is continued; empty for a new one.
    silent : bool
        Show no progress bar.

    Raises
    ------
    ValueError
        For settings that do not go together, before an image is read; for a --switch_theta that is too small; and for
        images that are all of one colour.
    """
    config, notes = _with_switches(config, dataset, before.get("switches"), silent)
    return _with_moments(config, dataset, before.get("data_moments"), silent), notes


def to_measure(config: TrainConfig) -> set[str]:
    """The settings that the images of the run decide."""
    wanted = {
        "switches": config.resolution_schedule == "data",
        "data_moments": config.prediction_type == "preconditioned",
    }
    return {name for name in MEASURED if wanted[name] and getattr(config, name) is None}


def _with_switches(
    config: TrainConfig, dataset: ImageDataset | ImageStream, before: list[int] | None, silent: bool
) -> tuple[TrainConfig, list[str]]:
    if "switches" not in to_measure(config):
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


def _with_moments(
    config: TrainConfig, dataset: ImageDataset | ImageStream, before: dict[str, list[float]] | None, silent: bool
) -> TrainConfig:
    if "data_moments" not in to_measure(config):
        return config
    if before is None:
        check_combinations(config)
        process = build_scheduler(replace(config, prediction_type="sample")).process
        assert isinstance(process, ScaleSpaceProcess)  # others refuse the prediction
        total = min(NUM_IMAGES, dataset.count or NUM_IMAGES)
        images = some_images(dataset, NUM_IMAGES, config.seed)
        with tqdm(images, "moments", total, unit=" images", delay=2, disable=silent) as shown:
            before = data_moments(shown, process).to_config()
    return replace(config, data_moments=before)
