"""The folder of a run: is it free, may the run continue there, what is written into it."""

from __future__ import annotations

import copy
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..commands.errors import UsageError
from ..commands.files import PART, remove_leftovers, write_text
from ..commands.lock import LOCK_NAME
from ..commands.output_paths import check_output_folder
from ..commands.settings_file import read_settings
from ..pipeline_ssd import SSDPipeline
from ..publishing.model_card import model_card
from ..publishing.saving import PIPELINE_PARTS, save_pipeline
from ..schedulers.base import ProcessScheduler
from .checkpoints import Progress, TrainState, find_newest, list_checkpoints, read_description
from .config import RENAMED, TrainConfig
from .measured import to_measure

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
        "data",  # if it holds the same images: `check_same_data`
        "max_steps",
        "max_minutes",
        "micro_batch_size",
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
        "allow_pipe",
        "accept_new_data",
        "resume",
        "overwrite",
        "dry_run",
    ]
)
"""Settings that may differ when a run continues."""
_CHANGES_THE_RUN = frozenset(["learning_rate", "max_grad_norm"])
"""Settings that may differ, too, for a run that went wrong; the change is written down. All others define the run."""


@dataclass(frozen=True)
class Continuation:
    """Where a run starts.

    Attributes
    ----------
    checkpoint : pathlib.Path or None
        What to resume from; None for a fresh start.
    found : tuple of str
        What was in the folder: see `look_into`.
    changes : list of dict
        Settings that changed, now and at earlier resumes: step, setting, before, after.
    notes : list of str
        What people should know.
    settings : dict
        Those of the run that continues.
    """

    checkpoint: Path | None = None
    found: tuple[str, ...] = ()
    changes: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


def check_out_folder(config: TrainConfig) -> Continuation:
    """Whether the run may use `config.out`, and where it starts there.

    Raises
    ------
    UsageError
        When the folder holds a run and neither --resume nor --overwrite is given, or something else; when the run
        there was configured differently, or has lost its checkpoints; or when `out` is a file.
    """
    out = Path(config.out)
    check_output_folder(out, "--out")
    if not (out / CONFIG_FILE).exists():
        if out.exists() and any(not _is_ours_in_passing(entry.name) for entry in out.iterdir()):
            raise UsageError(f"--out {out} is not empty and does not hold a run: give a new folder, or empty this one.")
        return Continuation()
    found = look_into(out)
    if config.overwrite:
        return Continuation(found=found)
    if not config.resume:
        raise UsageError(
            f"--out {out} holds another run: add --resume to continue it, --overwrite to delete it, or choose another "
            "folder."
        )
    checkpoint, notes = find_newest(out / "checkpoints")
    if checkpoint is None and notes:
        raise UsageError(f"No checkpoint in {out} is complete ({'; '.join(notes)}): start anew with --overwrite.")
    if checkpoint is None and (out / "model_index.json").exists():
        raise UsageError(
            f"{out} holds a trained pipeline, but its checkpoints/ are gone, so the run cannot continue: start a new "
            f"run from its weights with --init_from {out} and another --out, or delete it with --overwrite."
        )
    before = _settings_before(out, checkpoint)
    changes = _check_settings(out, config, checkpoint, before)
    notes += [f"{each['setting']} changes from {each['before']} to {each['after']}." for each in changes]
    earlier = read_description(checkpoint).changes if checkpoint is not None else []
    return Continuation(checkpoint, found, earlier + changes, notes, before)


def look_into(out: Path) -> tuple[str, ...]:
    """Whether a run is in a folder and which checkpoints it has, at a glance."""
    names = [CONFIG_FILE] if (out / CONFIG_FILE).exists() else []
    return (*names, *(path.name for path in list_checkpoints(out / "checkpoints")))


def check_same_data(config: TrainConfig, checkpoint: Path, data: dict[str, Any]) -> None:
    """Raise a `UsageError` unless a run continues with the images that it began with, or --accept_new_data is given.

    Parameters
    ----------
    config : TrainConfig
    checkpoint : pathlib.Path
    data : dict
        The data's provenance now. Where the images lie does not matter.
    """
    before = read_description(checkpoint).data
    compared = (name for name in before if name not in ("spec", "filter"))
    differing = [
        f"{name} was {before[name]!r} and is {data.get(name)!r}" for name in compared if before[name] != data.get(name)
    ]
    if differing and not config.accept_new_data:
        raise UsageError(
            f"The data of {config.out} changed since {checkpoint.name}: {'; '.join(differing)}. Bring back the earlier "
            "data, or continue with these by --accept_new_data."
        )
    moved = not before and config.data != read_description(checkpoint).settings.get("data", config.data)
    if moved and not config.accept_new_data:
        raise UsageError(
            f"Cannot resume {config.out} with --data {config.data}: its checkpoint does not say what its images were. "
            "Use the earlier --data, or --accept_new_data."
        )


def prepare_out_folder(config: TrainConfig, resuming: bool) -> Path:
    """Delete what belongs to an earlier run unless resuming, and write the configuration."""
    out = Path(config.out)
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


def _is_ours_in_passing(name: str) -> bool:
    """Whether a file is there only while a process writes, or after it was killed."""
    return name.startswith(PART) or name == LOCK_NAME


def _check_settings(
    out: Path, config: TrainConfig, checkpoint: Path | None, before: dict[str, Any]
) -> list[dict[str, Any]]:
    """Changes of the run's settings; a `UsageError` for one that defines what the run computes."""
    step = read_description(checkpoint).progress.step if checkpoint is not None else 0
    changes = []
    for name in (item.name for item in fields(TrainConfig)):
        old, new = before.get(name), getattr(config, name)
        if name not in before or old == new or name in _MAY_CHANGE | to_measure(config):
            continue
        if name not in _CHANGES_THE_RUN:
            raise UsageError(
                f"Cannot resume {out} with --{name} {new}: it was started with {old}. Use that, or another --out."
            )
        changes.append({"step": step, "setting": name, "before": old, "after": new})
    return changes


def _settings_before(out: Path, checkpoint: Path | None) -> dict[str, Any]:
    """The settings of the run in `out`, under their present names."""
    path = out / CONFIG_FILE
    try:
        before = read_settings(path)
    except UsageError as error:
        if checkpoint is None:
            raise UsageError(f"{error} This run has no checkpoint: delete it with --overwrite.") from error
        before = read_description(checkpoint).settings  # the same
    return _present_settings(before, checkpoint)


def _present_settings(before: dict[str, Any], checkpoint: Path | None) -> dict[str, Any]:
    """Settings of an earlier version under their present names; its batches were counted per process."""
    settings = {RENAMED.get(name, name): value for name, value in before.items()}
    routes = settings.pop("accumulate", settings.pop("gradient_accumulation_steps", None))
    per_process = settings.pop("batch_size", None)
    if routes is not None:
        settings["routes_per_step"] = routes
    if per_process is not None and checkpoint is not None:
        settings["global_batch_size"] = read_description(checkpoint).progress.global_batch * (routes or 1)
    return settings


def save_pipeline_of(
    config: TrainConfig, state: TrainState, scheduler: ProcessScheduler, gflops: float, changes: list[dict[str, Any]]
) -> None:
    """Write the pipeline of the averaged weights, with its card; one process."""
    pipeline = SSDPipeline(state.ema.networks[0], copy.deepcopy(scheduler))
    save_pipeline(pipeline, Path(config.out), training_card(config, pipeline, state.progress, gflops, changes))


def what_is_written(out: Path) -> list[str]:
    """What the folder of a run holds now, for the last words."""
    parts = {
        "the pipeline": "model_index.json",
        "checkpoints/": "checkpoints",
        "samples/": "samples",
        "log.csv": "log.csv",
    }
    return [said for said, name in parts.items() if (out / name).exists()]


def what_is_safe(out: Path) -> str:
    """Which checkpoint of a run is complete, for messages."""
    newest, _ = find_newest(out / "checkpoints")
    return f"The last good checkpoint is {newest}" if newest else "There is no good checkpoint yet"


def training_card(
    config: TrainConfig, pipeline: SSDPipeline, progress: Progress, gflops: float, changes: list[dict[str, Any]]
) -> str:
    """The model card of a run: data, recipe, steps, hours, and the mean cost per image and step."""
    origin = {
        "Data": f"{config.data}, crop preset {config.crop_preset}",
        "Steps": f"{progress.step} of {config.total_steps}, {progress.images} images, {progress.hours:.2f} hours",
        "Batch": f"{config.global_batch_size} images per step, in {config.routes_per_step} routes",
        "Optimizer": f"AdamW, learning rate {config.learning_rate:g} ({config.lr_scheduler}), "
        f"weight decay {config.weight_decay:g}",
        "Loss": f"{config.loss} of {config.prediction_type}"
        + (f", up to an SNR of {config.max_snr:g}" if config.loss != "simple" else "")
        + (", after clipping" if config.clipped_loss else ""),
        "Weights": f"moving average, decay {config.ema_decays[0]:g}",
        "Cost": f"{gflops:.2f} GFLOPs per image and step, averaged over the timesteps",
        "Seed": str(config.seed),
    }
    if changes:
        told = (f"{each['setting']} {each['before']} -> {each['after']} at step {each['step']}" for each in changes)
        origin["Changes"] = ", ".join(told)
    licence = "The weights are yours; mind the licence of the data they were trained on."
    return model_card(pipeline, config.out, origin, licence)
