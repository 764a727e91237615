"""Two processes are one: with DistributedDataParallel, with FSDP2, and when one of them fails."""

import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from ssd import SSDPipeline

from ..conftest import ROOT, TINY, run_script
from .runs import GROUPS, TRAIN, final_tensors, largest_difference, run_two, start_two, wait_for_lines

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
        done = run_two(tmp_path / "two", *flags, *more, fsdp=fsdp)
        assert done.code == 0, done.err
    assert largest_difference(final_tensors(tmp_path / "two", 5), final_tensors(one, 5)) < 1e-6
    assert (tmp_path / "two" / "samples" / "step_00000005_raw.png").exists()
    assert json.loads((tmp_path / "two/unet/config.json").read_text())["_class_name"] == "FlexiUNet2DModel"
    assert SSDPipeline.from_pretrained(tmp_path / "two")

    done = run_script(TRAIN, *flags, "--max_steps", "6", "--out", tmp_path / "two", "--resume")
    assert done.code == 0, done.err
    assert "note: batch_size is 4 on 1 processes: the global batch stays 4." in done.out
    progress = json.loads((tmp_path / "two/checkpoints/step_00000006/state.json").read_text())["progress"]
    assert (progress["images"], progress["batches"], progress["global_batch"]) == (48, 12, 4)


@pytest.mark.parametrize("fsdp", [False, True], ids=["DDP", "FSDP2"])
def test_one_level_needs_no_search_for_unused_parameters(tmp_path, fsdp: bool) -> None:
    flags = [*TINY, *GROUPS, "--data", "digits", "--levels", "1", "--block_out_channels", "[32,64]", "--max_steps", "2"]
    done = run_two(tmp_path / "two", *flags, "--batch_size", "2", fsdp=fsdp)
    assert done.code == 0, done.err
    assert run_script(TRAIN, *flags, "--batch_size", "4", "--out", tmp_path / "one").code == 0
    assert largest_difference(final_tensors(tmp_path / "two", 2), final_tensors(tmp_path / "one", 2)) < 1e-6


def test_a_global_batch_that_does_not_divide_continues_with_a_note(tmp_path) -> None:
    flags = [*TINY, "--data", "digits"]
    assert run_script(TRAIN, *flags, "--max_steps", "2", "--batch_size", "3", "--out", tmp_path / "x").code == 0
    done = run_two(tmp_path / "x", *flags, "--max_steps", "3", "--batch_size", "2", "--resume")
    assert done.code == 0, done.err
    assert "note: the global batch 3 becomes 4: it does not divide evenly." in done.out


def test_accumulation_equals_the_large_batch_when_the_route_is_fixed(tmp_path) -> None:
    flags = [*TINY, *GROUPS, "--data", "digits", "--max_steps", "3", "--levels", "1"]
    for name, batch, accumulate in (("small", "2", "4"), ("large", "8", "1")):
        more = ["--batch_size", batch, "--gradient_accumulation_steps", accumulate, "--out", tmp_path / name]
        done = run_script(TRAIN, *flags, *more)
        assert done.code == 0, done.err
    assert largest_difference(final_tensors(tmp_path / "small", 3), final_tensors(tmp_path / "large", 3)) < 1e-6


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (("--seed", "5"), "The processes disagree about --seed: 0 on process 0, 5 on process 1."),
        (("--data", "folder:/no/such/folder"), "The data folder /no/such/folder does not exist"),
    ],
)
def test_processes_that_disagree_refuse_before_the_first_step(tmp_path, second: tuple[str, ...], message: str) -> None:
    for started in start_two(tmp_path / "x", *FLAGS, "--max_steps", "2", second=second):
        started.wait().assert_one_line_error(message)
    assert not (tmp_path / "x").exists()


def test_processes_that_see_other_checkpoints_refuse(tmp_path) -> None:
    """As on two machines whose --out is not the same folder."""
    for name in ("x", "y"):
        assert run_script(TRAIN, *FLAGS, "--max_steps", "2", "--save_every", "1", "--out", tmp_path / name).code == 0
    shutil.rmtree(tmp_path / "y" / "checkpoints" / "step_00000002")
    flags = [*FLAGS, "--max_steps", "3", "--resume"]
    for started in start_two(tmp_path / "x", *flags, second=("--out", str(tmp_path / "y"))):
        started.wait().assert_one_line_error("The processes disagree about the checkpoint to resume", "process 1")


def test_a_process_that_loses_another_says_so_in_one_line(tmp_path) -> None:
    out = tmp_path / "x"
    first, second = start_two(out, *FLAGS, "--max_steps", "100000", "--batch_size", "2")
    wait_for_lines(out, 3, first)
    second.send_signal(signal.SIGKILL)
    done = first.wait(timeout=60)
    assert done.code == 1
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert lines == [
        "error: Process 0 ends because another process is gone: look for its message above. Continue with --resume."
    ]
    assert "Traceback" not in done.err


def test_when_a_process_is_killed_the_other_ends(tmp_path) -> None:
    out = tmp_path / "x"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    command += ["--config_file", "configs/accelerate/cpu_2_processes.yaml", TRAIN, *FLAGS, "--out", str(out)]
    launcher = subprocess.Popen(
        [*command, "--max_steps", "100000", "--batch_size", "2"],
        cwd=ROOT,
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for_lines(out, 3, launcher)
        children = psutil.Process(launcher.pid).children()
        assert len(children) == 2
        children[1].kill()
        assert launcher.wait(timeout=60) != 0
        assert not any(child.is_running() for child in children)
    finally:
        if launcher.poll() is None:
            os.killpg(launcher.pid, signal.SIGKILL)
