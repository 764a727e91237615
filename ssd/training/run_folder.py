"""The folder of a run: is it free, may the run continue there, what is written into it."""

from __future__ import annotations

import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError
from .checkpoints import PIPELINE_PARTS, list_checkpoints
from .config import TrainConfig

CONFIG_FILE = "train_config.yaml"
WRITTEN: dict[str, str] = {
    "model_index.json, unet/, scheduler/": "the pipeline with EMA weights, for SSDPipeline.from_pretrained",
    "checkpoints/": "training state, to resume from",
    "samples/": "grids of EMA samples",
    "log.csv, tensorboard/": "loss, loss per level, speed",
    CONFIG_FILE: "the resolved configuration",
}
_OWNED = (CONFIG_FILE, "checkpoints", "samples", "log.csv", "tensorboard", *PIPELINE_PARTS)
_MAY_CHANGE = {
    *("out", "max_steps", "mixed_precision", "num_workers", "cpu_threads", "log_every", "sample_every", "sample_steps"),
    *("save_every", "keep", "resume", "overwrite", "dry_run"),
}
"""Settings that may differ when a run continues; all others define what it computes."""


def check_out_folder(config: TrainConfig) -> Path | None:
    """Whether the run may use `config.out`: the checkpoint to resume from, or None for a fresh start.

    Raises
    ------
    UsageError
        When the folder holds a run and neither --resume nor --overwrite is given, when the run there was
        configured otherwise, or when `out` is a file.
    """
    out = Path(config.out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: give a folder.")
    if not (out / CONFIG_FILE).exists() or config.overwrite:
        return None
    if not config.resume:
        raise UsageError(
            f"--out {out} holds another run: add --resume true to continue it, --overwrite true to delete it, or "
            "choose another folder."
        )
    _check_same_settings(out, config)
    checkpoints = list_checkpoints(out / "checkpoints")
    return checkpoints[-1] if checkpoints else None


def prepare_out_folder(config: TrainConfig, resuming: bool) -> Path:
    """Make the folder, delete what belongs to an earlier run unless resuming, and write the configuration."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    if not resuming:
        for name in _OWNED:
            path = out / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    (out / CONFIG_FILE).write_text(yaml.safe_dump(asdict(config), sort_keys=False))
    return out


def _check_same_settings(out: Path, config: TrainConfig) -> None:
    before: dict[str, Any] = yaml.safe_load((out / CONFIG_FILE).read_text()) or {}
    for name in (item.name for item in fields(TrainConfig)):
        old, new = before.get(name), getattr(config, name)
        if name not in _MAY_CHANGE and name in before and old != new:
            raise UsageError(
                f"Cannot resume {out} with --{name} {new}: it was started with {old}. Use that, or another --out."
            )
