"""Checkpoints of a run: written whole or not at all, without pickle, and checked before they are trusted.

A checkpoint is a folder `checkpoints/step_00001000` with `unet.safetensors`, `ema_0.safetensors`, ..,
`optimizer.safetensors` and `state.json`, which lists the sizes of the others. It is written under a temporary name,
flushed to the disk, and renamed. Tensors of the optimizer are named by their parameters: "conv_in.weight.exp_avg".
"""

from __future__ import annotations

import json
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
from ..commands.files import whole_folder, write_json, write_text
from .ema import EmaNetworks
from .engine import sharded_like, whole


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
        The network in training; under FSDP its weights are shards.
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


def gather_tensors(state: TrainState) -> dict[str, dict[str, torch.Tensor]]:
    """All tensors of a run, whole: file name -> name -> tensor. All processes must call this together."""
    files = {"unet.safetensors": {name: whole(value) for name, value in state.unet.state_dict().items()}}
    files |= {f"ema_{i}.safetensors": dict(network.state_dict()) for i, network in enumerate(state.ema.networks)}
    files["optimizer.safetensors"] = {
        f"{name}.{key}": whole(torch.as_tensor(value))
        for name, moments in zip(_parameter_names(state.unet), _moments(state.optimizer))
        for key, value in moments.items()
    }
    return files


def save_checkpoint(
    state: TrainState,
    tensors: dict[str, dict[str, torch.Tensor]],
    folder: Path,
    settings: dict[str, Any],
    total_limit: int,
    milestone_every: int,
) -> Path:
    """Write a checkpoint below `folder`, on one process.

    Of the others the newest `total_limit` stay, and those at multiples of `milestone_every`.

    Parameters
    ----------
    state : TrainState
    tensors : dict
        Of `gather_tensors`.
    folder : pathlib.Path
    settings : dict
        The configuration, for people.
    total_limit, milestone_every : int

    Raises
    ------
    TrainingStopped
        When the disk is full; earlier checkpoints are untouched.
    """
    final = folder / f"step_{state.progress.step:08d}"
    needed = sum(t.numel() * t.element_size() for group in tensors.values() for t in group.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < needed:
            raise OSError("the disk is full")
        with whole_folder(final) as temporary:
            for name, group in tensors.items():
                save_file({key: tensor.detach().contiguous().cpu() for key, tensor in group.items()}, temporary / name)
            write_json(temporary / "state.json", _description(state, settings, temporary))
        write_text(folder / "latest", final.name + "\n", sync=True)  # for people: `find_newest` looks at the folders
    except (OSError, SafetensorError) as error:
        kept = list_checkpoints(folder)
        raise TrainingStopped(
            f"Cannot write the checkpoint {final} ({error}): it needs {needed / 2**20:.0f} MiB. "
            f"{kept[-1].name if kept else 'No checkpoint'} is intact: free some space and continue with --resume."
        ) from error
    _remove_old(folder, total_limit, milestone_every)
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


def load_networks(checkpoint: Path, unet: FlexiUNet2DModel, ema: EmaNetworks) -> None:
    """Fill the network, not yet sharded, and the averages from a complete checkpoint."""
    unet.load_state_dict(load_file(checkpoint / "unet.safetensors"))
    for index, network in enumerate(ema.networks):
        network.load_state_dict(load_file(checkpoint / f"ema_{index}.safetensors"))
    ema.updates = _read_state(checkpoint)["ema_updates"]


def load_optimizer(checkpoint: Path, state: TrainState) -> None:
    """Fill the optimizer, the scaler and the progress, after an engine has prepared them."""
    described = _read_state(checkpoint)
    names = _parameter_names(state.unet)
    numbers = {name: number for number, name in enumerate(names)}
    numbers |= {str(number): number for number in range(len(names))}  # version 0.1 counted instead of naming
    parameters = list(state.unet.parameters())
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(checkpoint / "optimizer.safetensors").items():
        name, _, kind = key.rpartition(".")
        number = numbers[name]
        moments.setdefault(number, {})[kind] = sharded_like(value, parameters[number])
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    if state.scaler is not None and described["scaler"]:
        state.scaler.load_state_dict(described["scaler"])
    state.progress = Progress(**described["progress"])


def read_progress(checkpoint: Path) -> Progress:
    """How far a checkpoint is, without its weights."""
    return Progress(**_read_state(checkpoint)["progress"])


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


def _remove_old(folder: Path, total_limit: int, milestone_every: int) -> None:
    for old in list_checkpoints(folder)[:-total_limit]:
        step = int(old.name.removeprefix("step_"))
        if not milestone_every or step % milestone_every:
            shutil.rmtree(old)


def _parameter_names(unet: FlexiUNet2DModel) -> list[str]:
    return [name for name, _ in unet.named_parameters()]


def _moments(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The optimizer's state of every parameter, in their order; empty for one that no step has used."""
    return [optimizer.state.get(parameter, {}) for group in optimizer.param_groups for parameter in group["params"]]


def _read_state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "state.json").read_text())
