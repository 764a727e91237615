"""Two processes are one: with DistributedDataParallel, with FSDP2, and when one of them fails."""

import json
import os
import signal
import subprocess
import time

import pytest

from ssd import SSDPipeline

from ..conftest import ROOT, TINY, run_script
from .runs import GROUPS, TRAIN, environment, final_tensors, largest_difference, launch_two, two_processes

FLAGS = [*TINY, *GROUPS, "--data", "digits", "--transition_probability", "0.5"]
MIXED = [*FLAGS, "--gradient_accumulation_steps", "2"]
"""Optimizer steps of two batches each, of different routes, with level changes among them."""


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Five steps of one process with twice the batch."""
    out = tmp_path_factory.mktemp("one") / "run"
    done = run_script(TRAIN, *MIXED, "--max_steps", "5", "--batch_size", "4", "--out", out)
    assert done.code == 0, done.err
    return out


@pytest.mark.parametrize("fsdp", [False, True], ids=["DDP", "FSDP2"])
def test_two_processes_are_one_with_twice_the_batch(one, tmp_path, fsdp: bool) -> None:
    flags = [*MIXED, "--batch_size", "2"]
    samples = ["--sample_every", "5", "--sample_steps", "2"]
    for more in (["--max_steps", "3"], ["--max_steps", "5", "--resume", *samples]):
        done = launch_two(tmp_path / "two", *flags, *more, fsdp=fsdp)
        assert done.returncode == 0, done.stderr
    assert largest_difference(final_tensors(tmp_path / "two", 5), final_tensors(one, 5)) < 1e-6
    assert (tmp_path / "two" / "samples" / "step_00000005_raw.png").exists()
    assert json.loads((tmp_path / "two/unet/config.json").read_text())["_class_name"] == "FlexiUNet2DModel"
    assert SSDPipeline.from_pretrained(tmp_path / "two")

    done = run_script(TRAIN, *flags, "--max_steps", "6", "--out", tmp_path / "two", "--resume")
    assert done.code == 0, done.err
    assert "note: batch_size is 4 on 1 processes: the global batch stays 4." in done.out
    progress = json.loads((tmp_path / "two/checkpoints/step_00000006/state.json").read_text())["progress"]
    assert (progress["images"], progress["batches"], progress["global_batch"]) == (48, 12, 4)


def test_one_level_needs_no_search_for_unused_parameters(tmp_path) -> None:
    flags = [*TINY, *GROUPS, "--data", "digits", "--levels", "1", "--block_out_channels", "[32,64]", "--max_steps", "2"]
    done = launch_two(tmp_path / "two", *flags, "--batch_size", "2")
    assert done.returncode == 0, done.stderr
    assert run_script(TRAIN, *flags, "--batch_size", "4", "--out", tmp_path / "one").code == 0
    assert largest_difference(final_tensors(tmp_path / "two", 2), final_tensors(tmp_path / "one", 2)) < 1e-6


def test_a_global_batch_that_does_not_divide_continues_with_a_note(tmp_path) -> None:
    flags = [*TINY, "--data", "digits"]
    assert run_script(TRAIN, *flags, "--max_steps", "2", "--batch_size", "3", "--out", tmp_path / "x").code == 0
    done = launch_two(tmp_path / "x", *flags, "--max_steps", "3", "--batch_size", "2", "--resume")
    assert done.returncode == 0, done.stderr
    assert "note: the global batch 3 becomes 4: it does not divide evenly." in done.stdout


def test_accumulation_equals_the_large_batch_when_the_route_is_fixed(tmp_path) -> None:
    flags = [*TINY, *GROUPS, "--data", "digits", "--max_steps", "3", "--levels", "1"]
    for name, batch, accumulate in (("small", "2", "4"), ("large", "8", "1")):
        more = ["--batch_size", batch, "--gradient_accumulation_steps", accumulate, "--out", tmp_path / name]
        done = run_script(TRAIN, *flags, *more)
        assert done.code == 0, done.err
    assert largest_difference(final_tensors(tmp_path / "small", 3), final_tensors(tmp_path / "large", 3)) < 1e-6


DISAGREEING = """
import os, sys
from ssd.commands.errors import exit_on_usage_error
from ssd.training.config import parse_train_config
from ssd.training.engine import make_accelerator
from ssd.training.setup import set_up
rank = int(os.environ["RANK"])
with exit_on_usage_error():
    config = parse_train_config([*sys.argv[2:], *(sys.argv[1].split() if rank else [])])
    set_up(config, make_accelerator(config))
"""


@pytest.mark.parametrize(
    ("flags_of_the_second", "message"),
    [
        ("--seed 5", "The processes disagree about --seed: 0 on process 0, 5 on process 1."),
        ("--data folder:/no/such/folder", "The data folder /no/such/folder does not exist"),
    ],
)
def test_processes_that_disagree_refuse_before_the_first_step(tmp_path, flags_of_the_second: str, message: str) -> None:
    script = tmp_path / "disagree.py"
    script.write_text(DISAGREEING)
    launcher = two_processes(tmp_path / "x", *TINY, "--data", "digits")
    launcher[launcher.index(TRAIN)] = str(script)
    launcher.insert(launcher.index(str(script)) + 1, flags_of_the_second)
    done = subprocess.run(
        launcher,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment() | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) >= 1
    assert all(message in line for line in lines), done.stderr


def test_when_a_process_is_killed_the_other_ends(tmp_path) -> None:
    out = tmp_path / "x"
    command = two_processes(out, *FLAGS, "--max_steps", "100000", "--batch_size", "2")
    launcher = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (out / "log.csv").exists() or len((out / "log.csv").read_text().splitlines()) < 3:
            assert launcher.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True).stdout.split()
        assert len(children) == 2
        os.kill(int(children[1]), signal.SIGKILL)
        assert launcher.wait(timeout=60) != 0
        assert not any(os.path.exists(f"/proc/{child}") for child in children)
    finally:
        if launcher.poll() is None:
            os.killpg(launcher.pid, signal.SIGKILL)
