"""Training that can be left alone: interruptions, several processes, bad numbers."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ssd.process import losses

from ..conftest import ROOT, TINY

TRAIN = "train/train_ssd.py"
STEPS = 30
RUN = [*TINY, "--data", "digits", "--max_steps", str(STEPS), "--save_every", "4", "--transition_probability", "0.3"]


def final_tensors(out: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    folder = out / "checkpoints" / f"step_{step:08d}"
    return {
        f"{path.name}/{key}": value for path in folder.glob("*.safetensors") for key, value in load_file(path).items()
    }


def logged(out: Path) -> list[tuple[str, str]]:
    with (out / "log.csv").open() as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file)]


def assert_same_run(one: Path, other: Path) -> None:
    expected, found = final_tensors(one), final_tensors(other)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert logged(one) == logged(other)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    subprocess.run([sys.executable, TRAIN, *RUN, "--out", str(out)], cwd=ROOT, check=True, capture_output=True)
    return out


def start(out: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, TRAIN, *RUN, "--out", str(out), *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_lines(out: Path, number: int, process: subprocess.Popen) -> None:
    """Until log.csv has `number` lines of losses, or the process ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (out / "log.csv").exists() and len((out / "log.csv").read_text().splitlines()) > number:
            return
        time.sleep(0.005)


def resume(out: Path) -> str:
    done = subprocess.run(
        [sys.executable, TRAIN, *RUN, "--out", str(out), "--resume", "true"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kill_nine_at_a_random_moment(uninterrupted, tmp_path) -> None:
    process = start(tmp_path / "x")
    wait_for_lines(tmp_path / "x", random.randint(5, STEPS - 5), process)
    process.kill()
    process.communicate()
    resume(tmp_path / "x")
    assert_same_run(uninterrupted, tmp_path / "x")


@pytest.mark.slow
def test_kill_nine_at_twenty_random_moments(uninterrupted, tmp_path) -> None:
    for moment in range(20):
        out = tmp_path / str(moment)
        process = start(out)
        wait_for_lines(out, 1, process)
        time.sleep(random.uniform(0, 1.5))
        process.kill()
        process.communicate()
        resume(out)
        assert_same_run(uninterrupted, out)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
    ids=lambda number: number.name,
)
def test_a_polite_signal_saves_and_exits_with_zero(uninterrupted, tmp_path, number) -> None:
    out = tmp_path / "x"
    process = start(out)
    wait_for_lines(out, 6, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert f"Stopped by {number.name}" in output
    newest = (out / "checkpoints" / "latest").read_text().strip()
    assert int(newest.removeprefix("step_")) == int(logged(out)[-1][0])  # within the step
    resume(out)
    assert_same_run(uninterrupted, out)


def test_a_damaged_newest_checkpoint_is_passed_over(uninterrupted, tmp_path, run_command) -> None:
    out = tmp_path / "x"
    flags = [TRAIN, *RUN, "--out", out]
    assert run_command(*flags, "--max_steps", "10").code == 0
    damaged = out / "checkpoints" / "step_00000010" / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    done = run_command(*flags, "--resume", "true")
    assert done.code == 0, done.err
    assert "note: skipped checkpoint step_00000010: optimizer.safetensors has 1000 bytes instead of" in done.out
    assert_same_run(uninterrupted, out)
    for checkpoint in (out / "checkpoints").glob("step_*"):
        (checkpoint / "state.json").unlink()
    run_command(*flags, "--resume", "true").assert_one_line_error("No checkpoint", "--overwrite true")


def launch_two(out: Path, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    command += ["--config_file", "configs/accelerate/cpu_2_processes.yaml", TRAIN, *flags, "--out", str(out)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=240)


# With one channel per group a bias before the norm has no gradient but round-off, which Adam blows up to full steps.
GROUPS = ["--norm_num_groups", "16"]


def test_two_processes_are_one_with_twice_the_batch(tmp_path, run_command) -> None:
    """Five optimizer steps of two batches each, with level changes among them; then a resume on one process."""
    flags = [*TINY, *GROUPS, "--data", "digits", "--max_steps", "5"]
    flags += ["--accumulate", "2", "--transition_probability", "0.5"]
    done = launch_two(tmp_path / "two", *flags, "--batch_size", "2", "--sample_every", "5", "--sample_steps", "2")
    assert done.returncode == 0, done.stderr
    assert run_command(TRAIN, *flags, "--batch_size", "4", "--out", tmp_path / "one").code == 0
    one, two = (load_file(tmp_path / run / "checkpoints/step_00000005/unet.safetensors") for run in ("one", "two"))
    for key in one:
        torch.testing.assert_close(two[key], one[key], atol=1e-5, rtol=0)
    assert (tmp_path / "two" / "samples" / "step_00000005.png").exists()

    done = run_command(
        TRAIN, *flags, "--max_steps", "6", "--batch_size", "2", "--out", tmp_path / "two", "--resume", "true"
    )
    assert done.code == 0, done.err
    assert "note: batch_size is 4 on 1 processes: the global batch stays 4." in done.out
    progress = json.loads((tmp_path / "two/checkpoints/step_00000006/state.json").read_text())["progress"]
    assert (progress["images"], progress["batches"], progress["global_batch"]) == (48, 12, 4)


def test_a_global_batch_that_does_not_divide_goes_on_with_a_note(tmp_path, run_command) -> None:
    flags = [*TINY, "--data", "digits", "--out", tmp_path / "x"]
    assert run_command(TRAIN, *flags, "--max_steps", "2", "--batch_size", "3").code == 0
    done = launch_two(tmp_path / "x", *flags[:-2], "--max_steps", "3", "--batch_size", "2", "--resume", "true")
    assert done.returncode == 0, done.stderr
    assert "note: the global batch 3 becomes 4: it does not divide evenly." in done.stdout


def test_accumulation_equals_the_large_batch_when_the_route_is_fixed(tmp_path, run_command) -> None:
    flags = [*TINY, *GROUPS, "--data", "digits", "--max_steps", "3", "--levels", "1"]
    for name, more in {"small": ("2", "4"), "large": ("8", "1")}.items():
        batch, accumulate = more
        done = run_command(TRAIN, *flags, "--batch_size", batch, "--accumulate", accumulate, "--out", tmp_path / name)
        assert done.code == 0, done.err
    small, large = (load_file(tmp_path / n / "checkpoints/step_00000003/unet.safetensors") for n in ("small", "large"))
    for key in large:
        torch.testing.assert_close(small[key], large[key], atol=1e-5, rtol=0)


def test_sampling_leaves_training_alone(uninterrupted, tmp_path, run_command) -> None:
    done = run_command(TRAIN, *RUN, "--out", tmp_path / "x", "--sample_every", "5", "--sample_steps", "2")
    assert done.code == 0, done.err
    expected, found = final_tensors(uninterrupted), final_tensors(tmp_path / "x")
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_the_average_moves(uninterrupted) -> None:
    tensors = final_tensors(uninterrupted)
    raw, average = tensors["unet.safetensors/conv_out.weight"], tensors["ema_0.safetensors/conv_out.weight"]
    assert not torch.equal(raw, average)
    assert 0 < average.abs().max() < 2 * raw.abs().max()


@pytest.fixture
def broken_loss(monkeypatch):
    """Make the loss of chosen calls NaN."""
    plain, calls = losses.min_snr_loss, [0]

    def install(bad_calls) -> None:
        def loss(*arguments):
            calls[0] += 1
            return plain(*arguments) * (float("nan") if calls[0] in bad_calls else 1.0)

        monkeypatch.setattr(losses, "min_snr_loss", loss)

    return install


def test_a_bad_step_is_skipped_and_counted(tmp_path, run_command, broken_loss) -> None:
    broken_loss({3})
    done = run_command(TRAIN, *TINY, "--data", "digits", "--out", tmp_path / "x", "--max_steps", "5")
    assert done.code == 0, done.err
    with (tmp_path / "x" / "log.csv").open() as file:
        assert [row["bad_steps"] for row in csv.DictReader(file)] == ["0", "0", "1", "1", "1"]
    for value in final_tensors(tmp_path / "x", 5).values():
        assert value.isfinite().all()


def test_many_bad_steps_stop_the_run_and_name_the_last_good_checkpoint(tmp_path, run_command, broken_loss) -> None:
    broken_loss(set(range(5, 100)))
    flags = [
        "--data",
        "digits",
        "--out",
        tmp_path / "x",
        "--max_steps",
        "50",
        "--save_every",
        "2",
        "--max_bad_steps",
        "3",
    ]
    done = run_command(TRAIN, *TINY, *flags)
    assert done.code == 1
    assert "3 steps in a row" in done.err
    assert "step_00000004: try a lower --learning_rate" in done.err
    assert sorted(path.name for path in (tmp_path / "x/checkpoints").glob("step_*"))[-1] == "step_00000004"


OPTIONS = {
    "larger coarse batches": ["--level_batch_scale", "2"],
    "several averages on the CPU": ["--ema_decays", "[0.9,0.999]", "--ema_on_cpu", "true"],
    "cosine with warm-up": ["--learning_rate_schedule", "cosine", "--warmup_steps", "2", "--max_grad_norm", "1"],
    "gradient checkpointing": ["--gradient_checkpointing", "true"],
    "channels last": ["--channels_last", "true"],
    "bf16": ["--mixed_precision", "bf16"],
    "class labels": ["--class_conditional", "true"],
    "workers": ["--num_workers", "1"],
    "dropout": ["--dropout", "0.1"],
    "no tracker": ["--tracker", "none"],
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_trains_resumes_and_samples(option: str, tmp_path, run_command) -> None:
    flags = [*TINY, "--data", "digits", "--out", tmp_path / "x", *OPTIONS[option]]
    more = ["--sample_every", "3", "--sample_steps", "2"]
    assert run_command(TRAIN, *flags, "--max_steps", "2").code == 0
    done = run_command(TRAIN, *flags, *more, "--max_steps", "3", "--resume", "true")
    assert done.code == 0, done.err
    assert (tmp_path / "x/samples/step_00000003.png").exists()


def test_training_can_start_from_other_weights(tmp_path, run_command) -> None:
    flags = [*TINY, "--data", "digits", "--max_steps", "2"]
    assert run_command(TRAIN, *flags, "--out", tmp_path / "x").code == 0
    other = [*flags, "--out", tmp_path / "y", "--init_from", tmp_path / "x"]
    assert run_command(TRAIN, *other, "--learning_rate", "1e-20").code == 0
    first, second = (load_file(tmp_path / r / "unet/diffusion_pytorch_model.safetensors") for r in ("x", "y"))
    for key in first:
        torch.testing.assert_close(first[key], second[key])
    wrong = [*flags, "--out", tmp_path / "z", "--layers_per_block", "2", "--init_from", tmp_path / "x"]
    run_command(TRAIN, *wrong).assert_one_line_error("another architecture", "tensors differ")
    run_command(TRAIN, *flags, "--out", tmp_path / "z", "--init_from", tmp_path).assert_one_line_error("is no pipeline")
    assert not (tmp_path / "z").exists()


@pytest.mark.slow
def test_a_compiled_network_trains_alike(tmp_path, run_command) -> None:
    flags = [*TINY, "--data", "digits", "--max_steps", "4", "--transition_probability", "0.3"]
    assert run_command(TRAIN, *flags, "--out", tmp_path / "plain").code == 0
    done = run_command(TRAIN, *flags, "--out", tmp_path / "compiled", "--compile", "true")
    assert done.code == 0, done.err
    assert "compiled (" in done.out + done.err
    plain, compiled = logged(tmp_path / "plain"), logged(tmp_path / "compiled")
    for (_, one), (_, other) in zip(plain, compiled):
        assert float(other) == pytest.approx(float(one), rel=1e-2)
