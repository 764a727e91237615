"""What tests of whole runs share."""

import os
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

from ssd.training.log import read_log

from ..conftest import ROOT, TINY

TRAIN = "train/train_ssd.py"
STEPS = 30
RUN = [*TINY, "--data", "digits", "--max_steps", str(STEPS), "--save_every", "4", "--transition_probability", "0.3"]
"""A run that is long enough to be interrupted, with level changes."""

# With one channel per group a bias before the norm has no gradient but round-off, which Adam blows up to full steps.
GROUPS = ["--norm_num_groups", "16"]


def final_tensors(out: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint."""
    folder = out / "checkpoints" / f"step_{step:08d}"
    return {
        f"{path.name}/{key}": value for path in folder.glob("*.safetensors") for key, value in load_file(path).items()
    }


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in one)


def logged(out: Path) -> list[tuple[str, str]]:
    return [(row["step"], row["loss"]) for row in read_log(out / "log.csv")]


def assert_same_run(one: Path, other: Path) -> None:
    assert largest_difference(final_tensors(one), final_tensors(other)) == 0
    assert logged(one) == logged(other)


def start(out: Path, *more: str) -> subprocess.Popen:
    """A run in a process of its own."""
    return subprocess.Popen(
        [sys.executable, TRAIN, *RUN, "--out", str(out), *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def two_processes(out: Path, *flags: str, fsdp: bool = False) -> list[str]:
    """The command of a run of two processes on the CPU."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    launch += ["--config_file", "configs/accelerate/cpu_2_processes.yaml"]
    return [*launch, TRAIN, *flags, "--out", str(out)]


def environment(fsdp: bool = False) -> dict[str, str]:
    """Of `two_processes`; with `fsdp` the settings of configs/accelerate/fsdp2.yaml, as the launcher passes them on."""
    chosen = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    if fsdp:
        settings = yaml.safe_load((ROOT / "configs/accelerate/fsdp2.yaml").read_text())["fsdp_config"]
        chosen |= {name.upper(): str(value).lower() for name, value in settings.items()}
        chosen |= {"ACCELERATE_USE_FSDP": "true", "FSDP_AUTO_WRAP_POLICY": settings["fsdp_auto_wrap_policy"]}
    return chosen


def launch_two(out: Path, *flags: str, fsdp: bool = False) -> subprocess.CompletedProcess:
    command = two_processes(out, *flags)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment(fsdp), timeout=240)
