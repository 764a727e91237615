"""Images that are drawn for an evaluation: neither processes, interruptions nor batches change a pixel."""

import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from PIL import Image

from ssd.commands.lock import hold_folder

from ..conftest import ROOT
from .conftest import EVAL, QUICK, assert_same_report, read_report, save_model


def run_as(rank: int, of: int, port: int, arguments: list[str]) -> None:
    """The command in a forked process, which need not import anything, as a launcher starts one of several."""
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    torch.set_num_threads(1)  # as in loader processes: the threads of the parent are not in its fork
    if of > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "yes"}
        os.environ |= {"WORLD_SIZE": str(of), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    sys.argv = [EVAL, *arguments]
    runpy.run_path(str(ROOT / EVAL), run_name="__main__")


def start(arguments: list[str], num_processes: int = 1) -> list[multiprocessing.process.BaseProcess]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    shared = (num_processes, port, arguments)
    started = [fork.Process(target=run_as, args=(rank, *shared), daemon=True) for rank in range(num_processes)]
    for process in started:
        process.start()
    return started


def test_two_processes_give_the_same_report(evaluated, everything, tmp_path) -> None:
    started = start([*everything, "--out", str(tmp_path / "two")], num_processes=2)
    for process in started:
        process.join(timeout=120)
    assert [process.exitcode for process in started] == [0, 0]
    assert "--num_processes 2" in read_report(tmp_path / "two")["commands"][0]
    assert_same_report(evaluated, tmp_path / "two")


def test_all_processes_of_a_second_run_are_refused(everything, tmp_path, capfd) -> None:
    with hold_folder(tmp_path / "two"):
        started = start([*everything, "--out", str(tmp_path / "two")], num_processes=2)
        for process in started:
            process.join(timeout=120)
    assert [process.exitcode for process in started] == [2, 2]
    said = capfd.readouterr().err
    refusal = f"error: --out {tmp_path / 'two'} is in use by process {os.getpid()} on "
    assert said.count(refusal) == said.count("error") == 2, said
    assert "Traceback" not in said
    assert list((tmp_path / "two").iterdir()) == []


@pytest.mark.slow
def test_the_launcher_gives_the_same_report(evaluated, everything, tmp_path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += [EVAL, *everything, "--out", str(tmp_path / "two")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_report(evaluated, tmp_path / "two")


def test_a_killed_run_ends_in_the_same_report(evaluated, everything, tmp_path, run_command) -> None:
    """Killed without warning while it samples, a hole and leftovers added, and started again."""
    out = tmp_path / "killed"
    flags = [*everything, "--out", str(out)]
    [process] = start(flags)
    deadline = time.monotonic() + 60
    while len(list(out.glob("generated/0*.png"))) < 5 and time.monotonic() < deadline and process.is_alive():
        time.sleep(0.001)
    process.kill()
    process.join()
    before = {path: path.stat().st_mtime_ns for path in out.glob("generated/0*.png")}
    assert before, "killed before the first image"
    hole = min(before)
    hole.unlink()
    leftovers = [out / ".part-1-samples.json", out / "generated" / ".part-1-000050.png"]
    for leftover in leftovers:
        leftover.write_bytes(b"half a picture")
    done = run_command(EVAL, *flags)
    assert done.code == 0, done.err
    assert_same_report(evaluated, out)
    assert hole.exists()
    assert not list(out.rglob(".part-*"))
    assert all(path.stat().st_mtime_ns == then for path, then in before.items() if path != hole)


def test_stream_and_batch_size_change_no_pixel(evaluated, everything, tmp_path, run_command) -> None:
    flags = [*everything, "--out", tmp_path / "s"]
    assert run_command(EVAL, *flags, "--stream").code == 0
    assert_same_report(evaluated, tmp_path / "s")
    assert not (tmp_path / "s" / "generated").exists()
    done = run_command(EVAL, *flags, "--stream", "--batch-size", "9")
    assert done.code == 0, done.err
    one, other = read_report(evaluated), read_report(tmp_path / "s")
    assert one["samples"] == other["samples"]
    assert one["metrics"] == pytest.approx(other["metrics"], rel=1e-5)
    pictures = [np.array(Image.open(evaluated / "generated" / f"{i:06d}.png")) for i in (0, 1)]
    assert (pictures[0] != pictures[1]).mean() > 0.5  # they are pictures, not one grey


def test_images_of_another_run_are_not_mixed(model, reference, tmp_path, run_command) -> None:
    out = tmp_path / "x"
    flags = ["--model", model, "--ref", reference, "--num", "4", "--out", out, *QUICK, "--metrics", "fid"]
    assert run_command(EVAL, *flags).code == 0
    first = (out / "generated" / "000000.png").read_bytes()
    run_command(EVAL, *flags, "--seed", "1").assert_one_line_error("seed is 0 there and 1 here", "with --overwrite")
    assert (out / "generated" / "000000.png").read_bytes() == first
    assert run_command(EVAL, *flags, "--seed", "1", "--overwrite").code == 0
    assert (out / "generated" / "000000.png").read_bytes() != first
    assert run_command(EVAL, *flags, "--seed", "1", "--num", "6").code == 0
    assert len(list((out / "generated").iterdir())) == 6


def test_classes_are_balanced_and_saved(reference, tmp_path, run_command) -> None:
    model = save_model(tmp_path / "m", num_class_embeds=4)
    (model / "train_config.yaml").write_text("crop_preset: sde140\n")
    flags = ["--model", model, "--ref", reference, "--num", "8", *QUICK]
    done = run_command(EVAL, *flags, "--out", tmp_path / "a", "--guidance_scale", "2")
    assert done.code == 0, done.err
    assert "trained with the preset 'sde140', but the reference is prepared with 'adm'" in done.err
    labels = json.loads((tmp_path / "a" / "labels.json").read_text())
    assert labels == {"kind": "balanced", "labels": [0, 1, 2, 0, 1, 2, 0, 1]}
    assert run_command(EVAL, *flags, "--out", tmp_path / "b", "--labels", "random", "--num_classes", "4").code == 0
    drawn = json.loads((tmp_path / "b" / "labels.json").read_text())["labels"]
    assert len(drawn) == 8
    assert set(drawn) <= {0, 1, 2, 3}
    run_command(EVAL, *flags, "--num_classes", "9").assert_one_line_error("--num_classes 9", "1..4")
