"""The folder of a run: is it free, may the run continue there, what is written into it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..commands.errors import UsageError
from ..commands.files import PART, remove_leftovers, write_text
from ..commands.lock import LOCK_NAME
from ..commands.output_paths import check_output_folder
from ..commands.settings_file import read_settings
from ..publishing.saving import PIPELINE_PARTS
from .checkpoints import find_newest, list_checkpoints, read_description
from .run_config import RENAMED, RunConfig

CONFIG_FILE = "train_config.yaml"
WRITTEN: dict[str, str] = {
    "README.md": "its model card",
    "checkpoints/": "training state, to resume from",
    "samples/": "grids of EMA samples",
    "log.csv, tensorboard/": "losses, gradient norms, speed",
    CONFIG_FILE: "the resolved configuration",
}
"""What every run writes beside its pipeline."""
_OWNED = (CONFIG_FILE, "checkpoints", "averages", "samples", "log.csv", "tensorboard", "README.md", *PIPELINE_PARTS)
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
        "sample_temperature",
        "valid_every",
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
_CHANGES_THE_RUN = frozenset(["learning_rate", "max_grad_norm", "skip_threshold"])
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


def check_out_folder(config: RunConfig, measured: Collection[str] = ()) -> Continuation:
    """Whether the run may use `config.out`, and where it starts there.

    Parameters
    ----------
    config : RunConfig
    measured : collection of str
        Settings that the images decide: a run that continues has them already.

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
    changes = _check_settings(out, config, checkpoint, before, measured)
    notes += [f"{each['setting']} changes from {each['before']} to {each['after']}." for each in changes]
    earlier = read_description(checkpoint).changes if checkpoint is not None else []
    return Continuation(checkpoint, found, earlier + changes, notes, before)


def look_into(out: Path) -> tuple[str, ...]:
    """Whether a run is in a folder and which checkpoints it has, at a glance."""
    names = [CONFIG_FILE] if (out / CONFIG_FILE).exists() else []
    return (*names, *(path.name for path in list_checkpoints(out / "checkpoints")))


def check_same_data(config: RunConfig, checkpoint: Path, data: dict[str, Any]) -> None:
    """Raise a `UsageError` unless a run continues with the images that it began with, or --accept_new_data is given.

    Parameters
    ----------
    config : RunConfig
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


def prepare_out_folder(config: RunConfig, resuming: bool) -> Path:
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


def _as_json(value: Any) -> Any:
    """A setting as a checkpoint gives it back: keys are texts."""
    return json.loads(json.dumps(value))


def _check_settings(
    out: Path, config: RunConfig, checkpoint: Path | None, before: dict[str, Any], measured: Collection[str]
) -> list[dict[str, Any]]:
    """Changes of the run's settings; a `UsageError` for one that defines what the run computes."""
    step = read_description(checkpoint).progress.step if checkpoint is not None else 0
    changes = []
    for name in (item.name for item in fields(config)):
        old, new = before.get(name), getattr(config, name)
        if name not in before or _as_json(old) == _as_json(new) or name in _MAY_CHANGE or name in measured:
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
