"""From settings to the parts of a run: data, network, process, and where it continues; checked on all processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from flexi_unet import FlexiUNet2DModel, ResizedUNet2DModel

from ..commands.errors import UsageError
from ..commands.lock import hold_folder
from ..data import ImageStream, open_dataset
from ..data.dataset import ImageDataset
from ..schedulers.base import ProcessScheduler
from .build import build_scheduler, build_unet, load_weights, stage_widths
from .checkpoints import check_fits
from .config import TrainConfig
from .engine import check_agreement
from .measured import settle_measured
from .run_folder import Continuation, check_out_folder, check_same_data, look_into
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
class Setup:
    """What a run starts with.

    Attributes
    ----------
    config : TrainConfig
    dataset : ImageDataset or ImageStream
    unet : FlexiUNet2DModel or ResizedUNet2DModel
        On the CPU, with new weights, or those of --init_from.
    scheduler : ProcessScheduler
    start : Continuation
        What to resume from.
    notes : list of str
        What people should know.
    """

    config: TrainConfig
    dataset: ImageDataset | ImageStream
    unet: FlexiUNet2DModel | ResizedUNet2DModel
    scheduler: ProcessScheduler
    start: Continuation
    notes: list[str]

    @property
    def summary(self) -> str:
        """The resolved configuration, the levels with their cost, and what will be written."""
        return summarize(self.config, self.unet, self.scheduler, self.dataset.count)

    @property
    def facts(self) -> dict[str, Any]:
        """What must be the same on all processes."""
        provenance = self.dataset.provenance
        checkpoint = self.start.checkpoint
        facts = {"the checkpoint to resume": checkpoint and checkpoint.name}
        facts |= {f"the data's {name}": value for name, value in provenance.items()}
        return facts | {f"--{name}": value for name, value in asdict(self.config).items()}


def set_up(config: TrainConfig, accelerator: Accelerator) -> Setup:
    """The parts of the run that `config` describes; nothing is written.

    Raises
    ------
    UsageError
        On all processes, if one finds something wrong or they disagree.
    """
    setup, problem = None, None
    try:
        setup = _set_up(config, silent=not accelerator.is_main_process)
        facts = setup.facts if accelerator.num_processes > 1 else {}
    except (ValueError, OSError) as error:
        facts, problem = {}, str(error)
    check_agreement(accelerator, facts, problem)
    assert setup is not None  # else there was a problem
    return setup


def _set_up(config: TrainConfig, silent: bool) -> Setup:
    torch.manual_seed(config.seed)  # of the network's first weights
    start = check_out_folder(config)
    notes = list(start.notes)
    dataset = open_training_data(config)
    if start.checkpoint is not None:
        check_same_data(config, start.checkpoint, dataset.provenance)
    notes += dataset.opening_notes
    unused = unused_settings(config)
    config, measured = settle_measured(config, dataset, start.settings, silent)
    notes += measured
    unet = build_unet(config, dataset.class_names if config.class_conditional else None)
    scheduler = build_scheduler(config)
    notes += unused
    if config.init_from and start.checkpoint is None:
        load_weights(unet, config.init_from)
    if start.checkpoint is not None:
        check_fits(start.checkpoint, unet)
    return Setup(config, dataset, unet, scheduler, start, notes)


@contextmanager
def claim_folder(setup: Setup, accelerator: Accelerator) -> Iterator[str | None]:
    """Be the only run that writes into --out, and make sure that it is still as `set_up` found it.

    Yields
    ------
    str or None
        A note, where the folder was left by a process that was killed.

    Raises
    ------
    UsageError
        On all processes, when another run has the folder or had it meanwhile.
    """
    with ExitStack() as stack:
        note: str | None = None
        problem: str | None = None
        try:
            if accelerator.is_main_process:
                note = stack.enter_context(hold_folder(setup.config.out))
                if look_into(Path(setup.config.out)) != setup.start.found:
                    raise UsageError(f"Another run was in {setup.config.out} meanwhile: start this one again.")
        except (ValueError, OSError) as error:
            problem = str(error)
        check_agreement(accelerator, {}, problem)
        yield note


def open_training_data(config: TrainConfig) -> ImageDataset | ImageStream:
    """The data set that `config` names."""
    dataset = open_dataset(
        config.data,
        config.sample_size,
        config.crop_preset,
        skip_bad_images=config.skip_bad_images,
        background=config.background,
        labels=config.class_conditional,
        num_classes=config.num_classes,
        label_column=config.label_column,
        allow_pipe=config.allow_pipe,
        channels=config.channels,
    )
    if isinstance(dataset, ImageStream) and config.level_batch_scale != 1:
        raise UsageError(
            f"--level_batch_scale {config.level_batch_scale} needs data with random access, and {config.data} is a "
            "stream: use 1, or prepare a copy with python -m ssd.data.prepare."
        )
    return dataset


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
