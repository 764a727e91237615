"""What tests of whole runs share."""

import itertools
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

from ssd.pipelines.saved_files import WEIGHTS
from ssd.training.log import read_log

from ..conftest import ROOT, TINY, Outcome, run_script

TRAIN = "train/train_ssd.py"
STEPS = 30
RUN = [*TINY, "--data", "digits", "--max_steps", str(STEPS), "--save_every", "4", "--transition_probability", "0.3"]
"""A run that is long enough to be interrupted, with level changes."""

VDVAE_TINY = [
    *("--data", "digits", "--res", "8", "--channels", "1", "--levels", "17", "--num_mixtures", "2"),
    *("--enc_blocks", "8x1,8d2,4x1r2", "--dec_blocks", "4x1r2,8m4,8x1", "--width", "8", "--latent_channels", "2"),
    *("--global_batch_size", "4", "--num_workers", "0", "--sample_every", "0", "--log_every", "1"),
    *("--learning_rate", "0.01", "--lr_warmup_steps", "5", "--cpu_threads", "1"),
]
"""Flags of a VDVAE with shared blocks that trains a step in milliseconds."""


@dataclass(frozen=True, eq=False)
class Script:
    """A training script, with a run that is long enough to be interrupted.

    Attributes
    ----------
    path : str
    part : str
        What its network is called.
    run : list of str
        Flags of the run, of `STEPS` steps.
    last_layer : str
        A weight that every step changes.
    sampling : list of str
        Flags that make its sample grids cheap.
    """

    path: str
    part: str
    run: list[str]
    last_layer: str
    sampling: list[str]


SSD = Script(TRAIN, "unet", RUN, "conv_out.weight", ["--sample_steps", "2"])
VDVAE = Script(
    "train/train_vdvae.py",
    "vdvae",
    [
        *(*VDVAE_TINY, "--max_steps", str(STEPS), "--save_every", "4"),
        *("--num_valid", "9", "--valid_every", "10", "--random_flip"),
    ],
    "out_conv.weight",
    [],
)
SCRIPTS = (SSD, VDVAE)

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
    [weights] = (f"{script.part}/{WEIGHTS}" for script in SCRIPTS if (one / script.part).is_dir())
    assert largest_difference(load_file(one / weights), load_file(other / weights)) == 0
    assert f"{STEPS} of {STEPS}, " in (other / "README.md").read_text()


_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload([__name__, "ssd.training.setup", "ssd.training.vdvae.setup", "ssd.training.samples"])
"""Processes are forked from one that has imported everything and computed nothing: they start in no time."""


class Started:
    """A command in a process of its own."""

    def __init__(
        self, out: Path, *flags: str | Path, environment: dict[str, str] | None = None, script: str = TRAIN
    ) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        self._output = out.parent / f"output_of_{next(_NUMBERS)}.txt"
        arguments = [script, "--out", str(out), *map(str, flags)]
        self.process = _FORKSERVER.Process(
            target=_run_and_write, args=(arguments, environment or {}, self._output), daemon=True
        )
        self.process.start()

    def send_signal(self, number: int) -> None:
        """Nothing happens if the process has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    @property
    def has_ended(self) -> bool:
        return not self.process.is_alive()

    def wait(self, timeout: float = 120) -> Outcome:
        """What it did; a process that was killed has said nothing."""
        self.process.join(timeout)
        assert self.has_ended, "the process hangs"
        said = json.loads(self._output.read_text()) if self._output.exists() else {"out": "", "err": ""}
        return Outcome(self.process.exitcode, said["out"], said["err"])


_NUMBERS = itertools.count()


def _run_and_write(arguments: list[str], environment: dict[str, str], output: Path) -> None:
    os.environ.update({"OMP_NUM_THREADS": "1"} | environment)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    done = run_script(*arguments)
    output.write_text(json.dumps({"out": done.out, "err": done.err}))
    sys.exit(done.code)


def start(script: Script, out: Path, *more: str) -> Started:
    """The long run in a process of its own."""
    return Started(out, *script.run, *more, script=script.path)


def wait_for_lines(out: Path, number: int, process: Started | subprocess.Popen) -> None:
    """Until log.csv has `number` lines of losses, or the process ended."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        ended = process.has_ended if isinstance(process, Started) else process.poll() is not None
        if ended or ((out / "log.csv").exists() and len((out / "log.csv").read_text().splitlines()) > number):
            return
        time.sleep(0.005)


def start_two(
    out: Path, *flags: str, fsdp: bool = False, second: tuple[str, ...] = (), script: str = TRAIN
) -> list[Started]:
    """A run of two processes on the CPU, as a launcher starts it; the second has more flags."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if fsdp:  # as the launcher passes the settings of the file on
        settings = yaml.safe_load((ROOT / "configs/accelerate/fsdp2.yaml").read_text())["fsdp_config"]
        shared |= {name.upper(): str(value) for name, value in settings.items()} | {"ACCELERATE_USE_FSDP": "true"}
    return [
        Started(
            out,
            *flags,
            *(second if rank else ()),
            environment=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            script=script,
        )
        for rank in range(2)
    ]


def run_two(out: Path, *flags: str, fsdp: bool = False, script: str = TRAIN) -> Outcome:
    """`start_two`, finished; what process 0 said."""
    first, second = (started.wait() for started in start_two(out, *flags, fsdp=fsdp, script=script))
    assert second.code == first.code, second.err
    return first
