"""The folder of a run: is it free, may the run continue there, what is written into it."""

from __future__ import annotations

import copy
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from ..commands.errors import UsageError
from ..commands.files import PART, remove_leftovers, write_text
from ..commands.output_paths import check_output_folder
from ..pipeline_ssd import SSDPipeline
from ..publishing.model_card import model_card
from ..publishing.saving import PIPELINE_PARTS, save_pipeline
from ..scheduling_ssd import SSDScheduler
from .checkpoints import Progress, TrainState, find_newest, gather_tensors, save_checkpoint
from .config import RENAMED, TrainConfig

CONFIG_FILE = "train_config.yaml"
WRITTEN: dict[str, str] = {
    "model_index.json, unet/, scheduler/": "the pipeline with EMA weights, for SSDPipeline.from_pretrained",
    "README.md": "its model card",
    "checkpoints/": "training state, to resume from",
    "samples/": "grids of EMA samples",
    "log.csv, tensorboard/": "loss, loss per level, speed",
    CONFIG_FILE: "the resolved configuration",
}
_OWNED = (CONFIG_FILE, "checkpoints", "samples", "log.csv", "tensorboard", "README.md", *PIPELINE_PARTS)
_MAY_CHANGE = frozenset(
    [
        "out",
        "max_steps",
        "batch_size",  # a note tells how the global batch changes
        "mixed_precision",
        "compile",
        "channels_last",
        "gradient_checkpointing",
        "ema_on_cpu",
        "init_from",
        "num_workers",
        "cpu_threads",
        "log_every",
        "sample_every",
        "sample_steps",
        "save_every",
        "checkpoints_total_limit",
        "milestone_every",
        "max_bad_steps",
        "report_to",
        "skip_bad_images",
        "resume",
        "overwrite",
        "dry_run",
    ]
)
"""Settings that may differ when a run continues; all others define what it computes."""


def check_out_folder(config: TrainConfig) -> tuple[Path | None, list[str]]:
    """Whether the run may use `config.out`.

    Returns
    -------
    checkpoint : pathlib.Path or None
        What to resume from; None for a fresh start.
    notes : list of str
        Which checkpoints were skipped, and why.

    Raises
    ------
    UsageError
        When the folder holds a run and neither --resume nor --overwrite is given, or something else; when the run
        there was configured otherwise; or when `out` is a file.
    """
    out = Path(config.out)
    check_output_folder(out, "--out")
    if not (out / CONFIG_FILE).exists():
        if out.exists() and any(not entry.name.startswith(PART) for entry in out.iterdir()):
            raise UsageError(f"--out {out} is not empty and does not hold a run: give a new folder, or empty this one.")
        return None, []
    if config.overwrite:
        return None, []
    if not config.resume:
        raise UsageError(
            f"--out {out} holds another run: add --resume to continue it, --overwrite to delete it, or "
            "choose another folder."
        )
    _check_same_settings(out, config)
    checkpoint, notes = find_newest(out / "checkpoints")
    if checkpoint is None and notes:
        raise UsageError(f"No checkpoint in {out} is complete ({'; '.join(notes)}): start anew with --overwrite.")
    return checkpoint, notes


def prepare_out_folder(config: TrainConfig, resuming: bool) -> Path:
    """Make the folder, delete what belongs to an earlier run unless resuming, and write the configuration."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    for folder in (out, out / "checkpoints", out / "samples"):
        remove_leftovers(folder)
    if not resuming:
        for name in _OWNED:
            path = out / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    text = yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)
    write_text(out / CONFIG_FILE, text, sync=True)
    return out


def _check_same_settings(out: Path, config: TrainConfig) -> None:
    before: dict[str, Any] = yaml.safe_load((out / CONFIG_FILE).read_text()) or {}
    before = {RENAMED.get(name, name): value for name, value in before.items()}
    for name in (item.name for item in fields(TrainConfig)):
        old, new = before.get(name), getattr(config, name)
        if name not in _MAY_CHANGE and name in before and old != new:
            raise UsageError(
                f"Cannot resume {out} with --{name} {new}: it was started with {old}. Use that, or another --out."
            )


def save_run(config: TrainConfig, state: TrainState, scheduler: SSDScheduler, gflops: float, is_main: bool) -> None:
    """Write a checkpoint and the pipeline of the averaged weights; all processes gather, the main one writes.

    Raises
    ------
    TrainingStopped
        When the disk is full.
    """
    tensors = gather_tensors(state)
    if not is_main:
        return
    out = Path(config.out)
    limits = config.checkpoints_total_limit, config.milestone_every
    save_checkpoint(state, tensors, out / "checkpoints", asdict(config), *limits)
    pipeline = SSDPipeline(state.ema.networks[0], copy.deepcopy(scheduler))
    save_pipeline(pipeline, out, training_card(config, pipeline, state.progress, gflops))


def newest_name(out: Path) -> str:
    """The newest complete checkpoint of a run, for messages."""
    newest, _ = find_newest(out / "checkpoints")
    return str(newest) if newest else "none yet"


def training_card(config: TrainConfig, pipeline: SSDPipeline, progress: Progress, gflops: float) -> str:
    """The model card of a run: data, recipe, steps, hours, and the mean cost per image and step."""
    origin = {
        "Data": f"{config.data}, crop preset {config.crop_preset}",
        "Steps": f"{progress.step} of {config.total_steps}, {progress.images} images, {progress.hours:.2f} hours",
        "Batch": f"{progress.global_batch} at the finest level, {config.gradient_accumulation_steps} per step",
        "Optimizer": f"AdamW, learning rate {config.learning_rate:g} ({config.lr_scheduler}), "
        f"weight decay {config.weight_decay:g}",
        "Loss": f"min(SNR, {config.max_snr:g}) x mean squared error of the clean image",
        "Weights": f"moving average, decay {config.ema_decays[0]:g}",
        "Cost": f"{gflops:.2f} GFLOPs per image and step, averaged over the timesteps",
        "Seed": str(config.seed),
    }
    licence = "The weights are yours; mind the licence of the data they were trained on."
    return model_card(pipeline, config.out, origin, licence)
