"""Checkpoints of a run: written whole or not at all, without pickle, and checked before they are trusted.

A checkpoint is a folder `checkpoints/step_00001000` with `unet.safetensors`, `ema_0.safetensors`, ..,
`optimizer.safetensors` and `state.json`, which lists the sizes of the others. It is written under a temporary name,
brought to the disk, and renamed; then `latest` names it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from flexi_unet import FlexiUNet2DModel

from ..commands.errors import TrainingStopped
from .ema import EmaNetworks


@dataclass
class Progress:
    """How far a run is.

    Attributes
    ----------
    step : int
        Finished optimizer steps.
    batches : int
        Batches seen; several per step with gradient accumulation.
    images : int
        Images seen, by all processes.
    global_batch : int
        Images per batch at the finest level, by all processes.
    hours : float
        Training time.
    """

    step: int = 0
    batches: int = 0
    images: int = 0
    global_batch: int = 0
    hours: float = 0.0


@dataclass
class TrainState:
    """What a run needs to continue.

    Attributes
    ----------
    unet : FlexiUNet2DModel
        The network in training.
    ema : EmaNetworks
    optimizer : torch.optim.Optimizer
        Its parameters are those of `unet`, in order.
    scaler : torch.amp.GradScaler, optional
        With fp16.
    progress : Progress
    """

    unet: FlexiUNet2DModel
    ema: EmaNetworks
    optimizer: torch.optim.Optimizer
    scaler: Any = None
    progress: Progress = field(default_factory=Progress)


def save_checkpoint(state: TrainState, folder: Path, settings: dict[str, Any], keep: int, milestone_every: int) -> Path:
    """Write `state` below `folder`; of the others keep the newest `keep` and those at multiples of `milestone_every`.

    Raises
    ------
    TrainingStopped
        When the disk is full; earlier checkpoints are untouched.
    """
    final = folder / f"step_{state.progress.step:08d}"
    temporary = folder / f".{final.name}.tmp"
    tensors = _all_tensors(state)
    needed = sum(t.numel() * t.element_size() for group in tensors.values() for t in group.values())
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        if shutil.disk_usage(folder).free < needed:
            raise OSError("the disk is full")
        for name, group in tensors.items():
            save_file({key: tensor.detach().contiguous().cpu() for key, tensor in group.items()}, temporary / name)
            _sync(temporary / name)
        _write_json(temporary / "state.json", _description(state, settings, temporary))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        _sync(folder)
        _write_latest(folder, final.name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        kept = list_checkpoints(folder)
        raise TrainingStopped(
            f"Cannot write the checkpoint {final} ({error}): it needs {needed / 2**20:.0f} MiB. "
            f"{kept[-1].name if kept else 'No checkpoint'} is intact: free some space and continue with --resume true."
        ) from error
    _remove_old(folder, keep, milestone_every)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Folders with a checkpoint's final name, oldest first."""
    return sorted(folder.glob("step_[0-9]*"))


def find_newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest complete checkpoint, and a line for each newer one that was skipped."""
    skipped: list[str] = []
    for checkpoint in reversed(list_checkpoints(folder)):
        fault = _fault(checkpoint)
        if fault is None:
            return checkpoint, skipped
        skipped.append(f"skipped checkpoint {checkpoint.name}: {fault}")
    return None, skipped


def load_checkpoint(state: TrainState, checkpoint: Path) -> None:
    """Fill `state` in place from a complete checkpoint."""
    described = json.loads((checkpoint / "state.json").read_text())
    state.unet.load_state_dict(load_file(checkpoint / "unet.safetensors"))
    for index, network in enumerate(state.ema.networks):
        network.load_state_dict(load_file(checkpoint / f"ema_{index}.safetensors"))
    state.ema.updates = described["ema_updates"]
    _load_optimizer(state.optimizer, load_file(checkpoint / "optimizer.safetensors"))
    state.progress = Progress(**described["progress"])
    if state.scaler is not None and described["scaler"]:
        state.scaler.load_state_dict(described["scaler"])


def read_progress(checkpoint: Path) -> Progress:
    """How far a checkpoint is, without its weights."""
    return Progress(**json.loads((checkpoint / "state.json").read_text())["progress"])


def _all_tensors(state: TrainState) -> dict[str, dict[str, torch.Tensor]]:
    """File name -> tensors."""
    files = {"unet.safetensors": dict(state.unet.state_dict())}
    files |= {f"ema_{i}.safetensors": dict(net.state_dict()) for i, net in enumerate(state.ema.networks)}
    files["optimizer.safetensors"] = _optimizer_tensors(state.optimizer)
    return files


def _description(state: TrainState, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "progress": vars(state.progress),
        "ema_updates": state.ema.updates,
        "scaler": state.scaler.state_dict() if state.scaler is not None else None,
        "settings": settings,
        "files": {path.name: path.stat().st_size for path in sorted(folder.glob("*.safetensors"))},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "accelerate": accelerate.__version__,
            "git": git_revision(),
        },
    }


def git_revision() -> str | None:
    """The commit of this checkout, with "-dirty" for local changes; None where there is no git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def _fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None."""
    try:
        files = json.loads((checkpoint / "state.json").read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"state.json cannot be read ({type(error).__name__})"
    for name, size in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None


def _remove_old(folder: Path, keep: int, milestone_every: int) -> None:
    for old in list_checkpoints(folder)[:-keep]:
        step = int(old.name.removeprefix("step_"))
        if not milestone_every or step % milestone_every:
            shutil.rmtree(old)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as a flat dict: '17.exp_avg' is the `exp_avg` of parameter 17."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, values in state.items() for name, value in values.items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _write_latest(folder: Path, name: str) -> None:
    temporary = folder / ".latest.tmp"
    temporary.write_text(name + "\n")
    _sync(temporary)
    os.replace(temporary, folder / "latest")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
    _sync(path)


def _sync(path: Path) -> None:
    """Ask the system to bring a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
