"""From settings to the parts of a run: data, network, process, and where it continues; checked on all processes."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from accelerate import Accelerator

from flexi_unet import FlexiUNet2DModel, ResizedUNet2DModel

from ..commands.errors import UsageError
from ..data import ImageStream
from ..data.dataset import ImageDataset
from ..data.held_out import hold_out
from ..publishing.saving import load_unet
from ..schedulers.base import ProcessScheduler
from .build import build_scheduler, build_unet, stage_widths
from .checkpoints import check_fits
from .config import TrainConfig
from .measured import settle_measured, to_measure
from .run_folder import check_out_folder, check_same_data
from .small_images import own_sizes
from .starting import RunSetup, agreed, copy_weights, open_images
from .summary import summarize

OF_LEVELS = (
    "resolution_schedule",
    "resolution_gamma",
    "downsample_kernel",
    "switch_jitter",
    "level_gain",
    "level_batch_scale",
    "transition_probability",
)
"""Settings that say how levels follow each other."""


@dataclass
class Setup(RunSetup):
    """What a run of Scale Space Diffusion starts with.

    Attributes
    ----------
    unet : FlexiUNet2DModel or ResizedUNet2DModel
        On the CPU, with new weights, or those of --init_from.
    scheduler : ProcessScheduler
    held_out : ImageDataset, optional
        The images that are not learned from.
    """

    config: TrainConfig
    unet: FlexiUNet2DModel | ResizedUNet2DModel
    scheduler: ProcessScheduler
    held_out: ImageDataset | None

    @property
    def summary(self) -> str:
        """The resolved configuration, the levels with their cost, and what will be written."""
        return summarize(self.config, self.unet, self.scheduler, self.dataset.count)


def set_up(config: TrainConfig, accelerator: Accelerator) -> Setup:
    """The parts of the run that `config` describes; nothing is written.

    Raises
    ------
    UsageError
        On all processes, if one finds something wrong or they disagree.
    """
    return agreed(lambda: _set_up(config, silent=not accelerator.is_main_process), accelerator)


def _set_up(config: TrainConfig, silent: bool) -> Setup:
    torch.manual_seed(config.seed)  # of the network's first weights
    start = check_out_folder(config, to_measure(config))
    notes = list(start.notes)
    dataset, held_out = open_training_data(config), None
    notes += dataset.opening_notes
    if config.num_valid:
        dataset, held_out = hold_out(dataset, config.num_valid)
    if start.checkpoint is not None:
        check_same_data(config, start.checkpoint, dataset.provenance)
    unused = unused_settings(config)
    config, measured = settle_measured(config, dataset, start.settings, silent)
    notes += measured
    unet = build_unet(config, dataset.class_names if config.class_conditional else None)
    scheduler = build_scheduler(config)
    notes += unused
    if config.init_from and start.checkpoint is None:
        copy_weights(unet, load_unet(config.init_from), config.init_from)
    if start.checkpoint is not None:
        check_fits(start.checkpoint, unet)
    return Setup(config, dataset, start, notes, unet, scheduler, held_out)


def open_training_data(config: TrainConfig) -> ImageDataset | ImageStream:
    """The data set that `config` names."""
    dataset = open_images(
        config, labels=config.class_conditional, num_classes=config.num_classes, label_column=config.label_column
    )
    if isinstance(dataset, ImageStream) and config.level_batch_scale != 1:
        raise UsageError(
            f"--level_batch_scale {config.level_batch_scale} needs data with random access, and {config.data} is a "
            "stream: use 1, or prepare a copy with python -m ssd.data.prepare."
        )
    return dataset if config.small_images == "upscale" else own_sizes(config, dataset)


def unused_settings(config: TrainConfig) -> list[str]:
    """Notes about settings that change nothing: those of levels where there is one, and the like."""
    sides = [min(config.size) >> stage for stage in range(len(stage_widths(config)))]
    unused = [side for side in config.attention_resolutions if side not in sides]
    notes = [f"attention_resolutions {unused}: no stage has this side, they have {sides}."] if unused else []
    without_effect = {
        "with one level": (config.levels == 1, OF_LEVELS),
        f"with --network {config.network}": (
            config.network != "flexi_unet",
            ("decoder_exit", "patch_size", "downsample_type"),
        ),
        f"with --loss {config.loss}": (config.loss == "simple", ("max_snr",)),
        f"with --prediction_type {config.prediction_type}": (
            config.prediction_type != "preconditioned",
            ("data_moments", "handover_snr"),
        ),
        "with --switches": (config.switches is not None, ("resolution_gamma", "switch_theta")),
        "with --resolution_schedule data": (config.resolution_schedule == "data", ("resolution_gamma",)),
        "without --resolution_schedule data": (config.resolution_schedule != "data", ("switch_theta",)),
        "without --min_size": (config.min_size is None, ("size_step",)),
        "without --transition_probability": (config.transition_probability is None, ("importance_weights",)),
        "without --class_conditional": (not config.class_conditional, ("label_dropout",)),
    }
    defaults = {item.name: item.default for item in fields(TrainConfig)}
    for why, (holds, names) in without_effect.items():
        given = [name for name in names if holds and getattr(config, name) != defaults[name]]
        notes += [f"{name} {getattr(config, name)}: it has no effect {why}." for name in given]
    return notes
