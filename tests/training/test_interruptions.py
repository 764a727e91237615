"""Training that can be left alone: it continues exactly after any interruption, whatever is trained."""

import random
import signal
import time
from pathlib import Path

import pytest

from ..conftest import run_script
from .runs import (
    SCRIPTS,
    STEPS,
    Script,
    assert_same_run,
    final_tensors,
    largest_difference,
    logged,
    start,
    wait_for_lines,
)


@pytest.fixture(scope="module", params=SCRIPTS, ids=lambda script: script.part)
def script(request) -> Script:
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(script, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    done = run_script(script.path, *script.run, "--out", out)
    assert done.code == 0, done.err
    return out


@pytest.fixture
def moments() -> random.Random:
    """Random moments; the seed is shown when the test fails, and can be set to repeat it."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"random moments of seed {seed}")
    return random.Random(seed)


def resume(script: Script, out: Path) -> str:
    done = run_script(script.path, *script.run, "--out", out, "--resume")
    assert done.code == 0, done.err
    return done.out


def test_kill_nine_at_a_random_moment(script, uninterrupted, tmp_path, moments) -> None:
    process = start(script, tmp_path / "x")
    wait_for_lines(tmp_path / "x", moments.randint(5, STEPS - 5), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resume(script, tmp_path / "x")
    assert_same_run(uninterrupted, tmp_path / "x")


@pytest.mark.slow
@pytest.mark.parametrize(("times", "first_line"), [(20, 1), (5, STEPS - 1)], ids=["20 anywhere", "5 at the last step"])
def test_kill_nine_at_many_random_moments(
    script, uninterrupted, tmp_path, moments, times: int, first_line: int
) -> None:
    killed = 0
    for moment in range(times):
        out = tmp_path / str(moment)
        process = start(script, out)
        wait_for_lines(out, first_line, process)
        time.sleep(moments.uniform(0, 0.8 if first_line == 1 else 0.05))
        process.send_signal(signal.SIGKILL)
        killed += process.wait().code == -signal.SIGKILL
        resume(script, out)
        assert_same_run(uninterrupted, out)
        assert not [path for path in out.rglob(".part-*")]
    assert killed > times / 3, "most runs ended before they were killed"


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
    ids=lambda number: number.name,
)
def test_a_polite_signal_saves_and_exits_with_zero(script, uninterrupted, tmp_path, number) -> None:
    out = tmp_path / "x"
    process = start(script, out)
    wait_for_lines(out, 6, process)
    process.send_signal(number)
    done = process.wait()
    assert done.code == 0, done.err
    assert f"Stopped by {number.name}" in done.out
    newest = (out / "checkpoints" / "latest").read_text().strip()
    assert int(newest.removeprefix("step_")) == int(logged(out)[-1][0])  # within the step
    resume(script, out)
    assert_same_run(uninterrupted, out)


def test_a_damaged_newest_checkpoint_is_passed_over(script, uninterrupted, tmp_path) -> None:
    out = tmp_path / "x"
    flags = [script.path, *script.run, "--out", out]
    assert run_script(*flags, "--max_steps", "10").code == 0
    damaged = out / "checkpoints" / "step_00000010" / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    done = run_script(*flags, "--resume")
    assert done.code == 0, done.err
    assert "note: skipped checkpoint step_00000010: optimizer.safetensors has 1000 bytes instead of" in done.out
    assert_same_run(uninterrupted, out)
    for checkpoint in (out / "checkpoints").glob("step_*"):
        (checkpoint / "state.json").unlink()
    run_script(*flags, "--resume").assert_one_line_error("No checkpoint", "--overwrite")


def test_a_finished_run_has_nothing_left_to_do(script, uninterrupted) -> None:
    done = run_script(script.path, *script.run, "--out", uninterrupted, "--resume")
    assert done.code == 0, done.err
    assert f"Finished after {STEPS} steps" in done.out


def test_sampling_leaves_training_alone(script, uninterrupted, tmp_path) -> None:
    flags = [*script.run, "--out", tmp_path / "x", "--sample_every", "10", *script.sampling]
    done = run_script(script.path, *flags)
    assert done.code == 0, done.err
    assert largest_difference(final_tensors(uninterrupted), final_tensors(tmp_path / "x")) == 0


def test_the_average_moves(script, uninterrupted) -> None:
    tensors = final_tensors(uninterrupted)
    raw, average = (tensors[f"{name}.safetensors/{script.last_layer}"] for name in (script.part, "ema_0"))
    assert 0 < (raw - average).abs().max() < 2 * raw.abs().max()
