"""Two processes are one: with DistributedDataParallel, with FSDP2, and when one of them fails."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

from ssd import SSDPipeline, VDVAEPipeline
from ssd.data.prepare import main
from ssd.training.log import read_log

from ..conftest import ROOT, TINY, run_script
from .runs import (
    GROUPS,
    SSD,
    TRAIN,
    VDVAE,
    VDVAE_TINY,
    Script,
    final_tensors,
    largest_difference,
    run_two,
    start_two,
    wait_for_lines,
)

FLAGS = [*TINY, *GROUPS, "--data", "digits", "--transition_probability", "0.5"]
MIXED = [*FLAGS, "--routes_per_step", "2", "--global_batch_size", "8"]
"""Optimizer steps of two batches each, of different routes, with level changes among them."""


FLAGS_OF = {SSD: MIXED, VDVAE: [*VDVAE_TINY, "--global_batch_size", "8", "--random_flip", "--num_valid", "9"]}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Five steps of one process, by script."""
    folder = tmp_path_factory.mktemp("one")

    @functools.cache
    def run(script: Script) -> Path:
        done = run_script(script.path, *FLAGS_OF[script], "--max_steps", "5", "--out", folder / script.part)
        assert done.code == 0, done.err
        return folder / script.part

    return run


@pytest.mark.parametrize(
    ("script", "fsdp"), [(SSD, False), (SSD, True), (VDVAE, False)], ids=["SSD by DDP", "SSD by FSDP2", "VDVAE by DDP"]
)
def test_two_processes_are_one(script, fsdp: bool, one, tmp_path) -> None:
    flags = [*FLAGS_OF[script], "--micro_batch_size", "1"]
    samples = ["--sample_every", "5", *script.sampling]
    for more in (["--max_steps", "3"], ["--max_steps", "5", "--resume", *samples]):
        done = run_two(tmp_path / "two", *flags, *more, fsdp=fsdp, script=script.path)
        assert done.code == 0, done.err
    assert largest_difference(final_tensors(tmp_path / "two", 5), final_tensors(one(script), 5)) < 1e-6
    assert len(list((tmp_path / "two" / "samples").glob("step_00000005*.png"))) == 2
    if script == VDVAE:  # the held-out images are shared, too
        bits = [float(read_log(run / "log.csv")[-1]["valid_loss"]) for run in (tmp_path / "two", one(script))]
        assert bits[0] == pytest.approx(bits[1], rel=1e-5)
    network, pipeline = {"unet": ("FlexiUNet2DModel", SSDPipeline), "vdvae": ("VDVAEModel", VDVAEPipeline)}[script.part]
    assert json.loads((tmp_path / "two" / script.part / "config.json").read_text())["_class_name"] == network
    assert pipeline.from_pretrained(tmp_path / "two")

    done = run_script(script.path, *flags, "--max_steps", "6", "--out", tmp_path / "two", "--resume")
    assert done.code == 0, done.err
    progress = json.loads((tmp_path / "two/checkpoints/step_00000006/state.json").read_text())["progress"]
    routes = 2 if script == SSD else 1
    assert (progress["images"], progress["batches"], progress["global_batch"]) == (48, 6 * routes, 8 // routes)


@pytest.mark.parametrize("network", [["--process", "corrective_noise"], ["--network", "resized_unet"]])
def test_two_processes_have_the_gradients_of_one(tmp_path, network: list[str]) -> None:
    """Of one step: in later ones Adam blows up the round-off of biases without effect, those of attention's keys."""
    flags = [*MIXED, *network, "--max_steps", "1"]
    done = run_two(tmp_path / "two", *flags, "--micro_batch_size", "1")
    assert done.code == 0, done.err
    assert run_script(TRAIN, *flags, "--out", tmp_path / "one").code == 0
    two, one = (
        {name: value for name, value in final_tensors(tmp_path / run, 1).items() if name.endswith(".exp_avg")}
        for run in ("two", "one")
    )
    assert largest_difference(two, one) < 1e-5 * max(float(value.abs().max()) for value in one.values())


def test_the_full_unet_is_not_sharded(tmp_path) -> None:
    for started in start_two(tmp_path / "x", *FLAGS, "--network", "resized_unet", fsdp=True):
        started.wait().assert_one_line_error("--network resized_unet cannot be sharded by FSDP", "multi_gpu.yaml")


def test_a_vdvae_is_not_sharded(tmp_path) -> None:
    for started in start_two(tmp_path / "x", *VDVAE_TINY, fsdp=True, script=VDVAE.path):
        started.wait().assert_one_line_error("A VDVAE cannot be sharded by FSDP", "multi_gpu.yaml")


@pytest.mark.parametrize("fsdp", [False, True], ids=["DDP", "FSDP2"])
def test_one_level_needs_no_search_for_unused_parameters(tmp_path, fsdp: bool) -> None:
    flags = [*TINY, *GROUPS, "--data", "digits", "--levels", "1", "--block_out_channels", "[32,64]", "--max_steps", "2"]
    done = run_two(tmp_path / "two", *flags, fsdp=fsdp)
    assert done.code == 0, done.err
    assert run_script(TRAIN, *flags, "--out", tmp_path / "one").code == 0
    assert largest_difference(final_tensors(tmp_path / "two", 2), final_tensors(tmp_path / "one", 2)) < 1e-6


def test_a_global_batch_that_does_not_divide_is_refused(tmp_path) -> None:
    for started in start_two(tmp_path / "x", *FLAGS, "--max_steps", "2", "--global_batch_size", "3"):
        started.wait().assert_one_line_error("--global_batch_size 3 cannot be shared equally by 2 processes", "of 2")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("process", ["scale_space", "corrective_noise"])
def test_parts_of_a_batch_add_up_to_its_gradient(tmp_path, process: str) -> None:
    """However a step's images are divided for the memory, the steps are the same; routes are mixed, too."""
    flags = [*MIXED, "--process", process, "--max_steps", "3"]
    for name, most in (("whole", "8"), ("thirds", "3"), ("single", "1")):
        done = run_script(TRAIN, *flags, "--micro_batch_size", most, "--out", tmp_path / name)
        assert done.code == 0, done.err
    for name in ("thirds", "single"):
        assert largest_difference(final_tensors(tmp_path / name, 3), final_tensors(tmp_path / "whole", 3)) < 1e-6


def test_routes_share_the_images_of_a_step(tmp_path) -> None:
    """With one level all batches have the same route: however many, the gradient is that of their images together."""
    flags = [*TINY, *GROUPS, "--data", "digits", "--max_steps", "3", "--levels", "1", "--global_batch_size", "8"]
    for name, routes in (("four", "4"), ("one", "1")):
        done = run_script(TRAIN, *flags, "--routes_per_step", routes, "--out", tmp_path / name)
        assert done.code == 0, done.err
    assert largest_difference(final_tensors(tmp_path / "four", 3), final_tensors(tmp_path / "one", 3)) < 1e-6


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


def test_what_preparing_did_is_counted_once_for_all_processes(tmp_path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        Image.new("RGBA", (16, 16), (0, 0, 0, 60 * number)).save(tmp_path / "pictures" / f"{number}.png")
    main([f"folder:{tmp_path / 'pictures'}", "--res", "16", "--out", str(tmp_path / "copy")])
    done = run_two(tmp_path / "x", *TINY, "--data", f"prepared:{tmp_path / 'copy'}", "--max_steps", "2")
    assert done.code == 0, done.err
    assert [line for line in done.out.splitlines() if "composited" in line] == [
        "note: 4 of 4 pictures read were composited over white."
    ]


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
    first, second = start_two(out, *FLAGS, "--max_steps", "100000")
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
        [*command, "--max_steps", "100000"],
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
