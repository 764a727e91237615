"""Checkpoints of a run: written whole or not at all, without pickle, and checked before they are trusted.

A checkpoint is a folder `checkpoints/step_00001000` with the network, such as `unet.safetensors`, `ema_0.safetensors`,
.., `optimizer.safetensors` and `state.json`, which lists the sizes and digests of the others. It is written under a
temporary name, flushed to the disk, and renamed. Tensors of the optimizer are named by their parameters:
"conv_in.weight.exp_avg".
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ..commands.errors import TrainingStopped, UsageError
from ..commands.files import file_sha256, whole_folder, write_json, write_text
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
class Description:
    """What `state.json` says of a run, beside the files.

    Attributes
    ----------
    progress : Progress
    ema_updates : int
    scaler : dict or None
        State of the gradient scaler of fp16.
    settings : dict
        The configuration.
    data : dict
        Provenance of the data; empty in checkpoints of version 0.1.
    changes : list of dict
        Settings that changed when the run was resumed: step, setting, before, after.
    """

    progress: Progress
    ema_updates: int = 0
    scaler: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class TrainState:
    """What a run needs to continue.

    Attributes
    ----------
    network : torch.nn.Module
        The network in training; under FSDP its weights are shards.
    ema : EmaNetworks
    optimizer : torch.optim.Optimizer
        Its parameters are those of `network`, in order.
    scaler : torch.amp.GradScaler, optional
        With fp16.
    progress : Progress
    part : str
        What the network is called in its pipeline, and in checkpoints.
    """

    network: torch.nn.Module
    ema: EmaNetworks
    optimizer: torch.optim.Optimizer
    scaler: Any = None
    progress: Progress = field(default_factory=Progress)
    part: str = "unet"

    @property
    def network_file(self) -> str:
        """The name of the network's file in a checkpoint."""
        return f"{self.part}.safetensors"

    def describe(self, settings: dict[str, Any], data: dict[str, Any], changes: list[dict[str, Any]]) -> Description:
        """The state in words and numbers."""
        scaler = self.scaler.state_dict() if self.scaler is not None else None
        return Description(self.progress, self.ema.updates, scaler, settings, data, changes)


def gather_tensors(state: TrainState) -> dict[str, dict[str, torch.Tensor]]:
    """All tensors of a run, whole: file name -> name -> tensor. All processes must call this together."""
    files = {state.network_file: {name: whole(value) for name, value in state.network.state_dict().items()}}
    files |= {f"ema_{i}.safetensors": dict(network.state_dict()) for i, network in enumerate(state.ema.networks)}
    files["optimizer.safetensors"] = {
        f"{name}.{key}": whole(torch.as_tensor(value))
        for name, moments in zip(_parameter_names(state.network), _moments(state.optimizer))
        for key, value in moments.items()
    }
    return files


def save_checkpoint(
    tensors: dict[str, dict[str, torch.Tensor]],
    description: Description,
    folder: Path,
    total_limit: int,
    milestone_every: int,
) -> Path:
    """Write a checkpoint below `folder`, on one process.

    Of the others the newest `total_limit` stay, and those at multiples of `milestone_every`.

    Parameters
    ----------
    tensors : dict
        Of `gather_tensors`.
    description : Description
    folder : pathlib.Path
    total_limit, milestone_every : int

    Raises
    ------
    TrainingStopped
        When the disk is full; earlier checkpoints are untouched.
    """
    final = folder / f"step_{description.progress.step:08d}"
    needed = sum(t.numel() * t.element_size() for group in tensors.values() for t in group.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < needed:
            raise OSError("the disk is full")
        with whole_folder(final) as temporary:
            for name, group in tensors.items():
                save_file({key: tensor.detach().contiguous().cpu() for key, tensor in group.items()}, temporary / name)
            files = {
                path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in temporary.iterdir()
            }
            write_json(temporary / "state.json", asdict(description) | {"files": files, "versions": versions()})
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


def check_fits(checkpoint: Path, network: torch.nn.Module, part: str = "unet") -> None:
    """Raise a `UsageError` unless a checkpoint is of a network like `network`; only names and shapes are read."""
    path = checkpoint / f"{part}.safetensors"
    if not path.is_file():
        raise UsageError(f"{checkpoint} is of another kind of model: it has no {path.name}. Use another --out.")
    own = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    with safe_open(path, "pt") as file:
        theirs = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a dict)
    differing = sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name))
    if differing:
        name = differing[0]
        raise UsageError(
            f"{checkpoint} is of another network: {name} is {theirs.get(name)} there and {own.get(name)} here. Use the "
            "settings and the data that the run began with, or another --out."
        )


def load_networks(checkpoint: Path, network: torch.nn.Module, ema: EmaNetworks, part: str = "unet") -> None:
    """Fill the network, not yet sharded, and the averages from a complete checkpoint."""
    network.load_state_dict(load_file(checkpoint / f"{part}.safetensors"))
    for index, average in enumerate(ema.networks):
        average.load_state_dict(load_file(checkpoint / f"ema_{index}.safetensors"))
    ema.updates = read_description(checkpoint).ema_updates


def load_optimizer(checkpoint: Path, state: TrainState) -> None:
    """Fill the optimizer, the scaler and the progress, after an engine has prepared them."""
    described = read_description(checkpoint)
    names = _parameter_names(state.network)
    numbers = {name: number for number, name in enumerate(names)}
    numbers |= {str(number): number for number in range(len(names))}  # version 0.1 counted instead of naming
    parameters = list(state.network.parameters())
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(checkpoint / "optimizer.safetensors").items():
        name, _, kind = key.rpartition(".")
        number = numbers[name]
        moments.setdefault(number, {})[kind] = sharded_like(value, parameters[number])
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    if state.scaler is not None and described.scaler:
        state.scaler.load_state_dict(described.scaler)
    state.progress = described.progress


def read_description(checkpoint: Path) -> Description:
    """What a complete checkpoint says of the run, without its tensors; a ValueError for anything malformed."""
    content = _read_state(checkpoint)
    known = {item.name for item in fields(Description)}
    described = Description(**{name: value for name, value in content.items() if name in known})
    described.progress = Progress(**content["progress"])
    return described


def versions() -> dict[str, str | None]:
    """Of what a run depends on, for people."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "accelerate": accelerate.__version__,
        "git": git_revision(),
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
        files = _read_state(checkpoint)["files"]
    except ValueError as error:
        return str(error)
    for name, expected in files.items():
        path = checkpoint / name
        size, digest = (expected, None) if isinstance(expected, int) else (expected["bytes"], expected["sha256"])
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if digest is not None and file_sha256(path) != digest:  # version 0.1 wrote sizes alone
            return f"{name} is damaged: its content is not what was written"
    return None


def _read_state(checkpoint: Path) -> dict[str, Any]:
    """The content of state.json; a ValueError unless it has the form that `save_checkpoint` writes."""
    try:
        content = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"state.json cannot be read ({type(error).__name__})") from error
    parts = {"progress": dict, "ema_updates": int, "settings": dict, "files": dict}
    wrong = [
        name for name, kind in parts.items() if not isinstance(content, dict) or type(content.get(name)) is not kind
    ]
    if not wrong and not _is_progress(content["progress"]):
        wrong = ["progress"]
    if not wrong and not all(map(_is_file_entry, content["files"].items())):
        wrong = ["files"]
    if wrong:
        raise ValueError(f"state.json is malformed ({wrong[0]})")
    return content


def _is_progress(content: dict[str, Any]) -> bool:
    kinds = {item.name: float if item.name == "hours" else int for item in fields(Progress)}
    return content.keys() == kinds.keys() and all(
        type(value) in (int, kinds[name]) and 0 <= value < 2**63 for name, value in content.items()
    )


def _is_file_entry(entry: tuple[str, Any]) -> bool:
    name, expected = entry
    if Path(name).name != name or not name.endswith(".safetensors"):
        return False
    return type(expected) is int or (isinstance(expected, dict) and expected.keys() == {"bytes", "sha256"})


def _remove_old(folder: Path, total_limit: int, milestone_every: int) -> None:
    for old in list_checkpoints(folder)[:-total_limit]:
        step = int(old.name.removeprefix("step_"))
        if not milestone_every or step % milestone_every:
            shutil.rmtree(old)


def _parameter_names(network: torch.nn.Module) -> list[str]:
    return [name for name, _ in network.named_parameters()]


def _moments(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The optimizer's state of every parameter, in their order; empty for one that no step has used."""
    return [optimizer.state.get(parameter, {}) for group in optimizer.param_groups for parameter in group["params"]]
