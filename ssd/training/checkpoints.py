"""Checkpoints of a run: written whole or not at all, without pickle.

A checkpoint is a folder `checkpoints/step_00001000` with `unet.safetensors`, `ema.safetensors`,
`optimizer.safetensors` and `state.json`. It is written under a temporary name and renamed last, so a folder
with its final name is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..pipeline_ssd import SSDPipeline

PIPELINE_PARTS = ("unet", "scheduler", "model_index.json")


@dataclass
class TrainState:
    """What a run needs to continue.

    Attributes
    ----------
    unet : torch.nn.Module
        The network in training.
    ema_unet : torch.nn.Module
        The same network with averaged weights.
    optimizer : torch.optim.Optimizer
        Its parameters are those of `unet`, in order.
    ema_updates : int
        How often the average was updated.
    step : int
        Finished training steps.
    """

    unet: nn.Module
    ema_unet: nn.Module
    optimizer: torch.optim.Optimizer
    ema_updates: int = 0
    step: int = 0


def save_checkpoint(state: TrainState, folder: Path, keep: int) -> Path:
    """Write `state` below `folder`, and remove all but the newest `keep` checkpoints."""
    final = folder / f"step_{state.step:08d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _write_tensors(state.unet.state_dict(), temporary / "unet.safetensors")
    _write_tensors(state.ema_unet.state_dict(), temporary / "ema.safetensors")
    _write_tensors(_optimizer_tensors(state.optimizer), temporary / "optimizer.safetensors")
    _write_text(
        json.dumps({"step": state.step, "ema_updates": state.ema_updates, "torch": torch.__version__}, indent=2),
        temporary / "state.json",
    )
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints below `folder`, oldest first."""
    return sorted(folder.glob("step_[0-9]*"))


def load_checkpoint(state: TrainState, checkpoint: Path) -> None:
    """Fill `state` in place from a folder that `save_checkpoint` wrote."""
    state.unet.load_state_dict(load_file(checkpoint / "unet.safetensors"))
    state.ema_unet.load_state_dict(load_file(checkpoint / "ema.safetensors"))
    _load_optimizer(state.optimizer, load_file(checkpoint / "optimizer.safetensors"))
    numbers = json.loads((checkpoint / "state.json").read_text())
    state.step, state.ema_updates = numbers["step"], numbers["ema_updates"]


def save_pipeline(pipeline: SSDPipeline, out: Path) -> None:
    """Write `pipeline` into the run's folder in `save_pretrained` format, replacing an earlier one whole."""
    temporary = out / ".pipeline.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline.save_pretrained(temporary)
    for part in PIPELINE_PARTS:
        if (out / part).is_dir():
            shutil.rmtree(out / part)
        os.replace(temporary / part, out / part)
    shutil.rmtree(temporary)


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


def _write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path)
    _sync(path)


def _write_text(text: str, path: Path) -> None:
    path.write_text(text + "\n")
    _sync(path)


def _sync(path: Path) -> None:
    """Ask the system to bring a file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
