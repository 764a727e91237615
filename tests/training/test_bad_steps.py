"""Runs whose losses are not finite."""

import pytest
import torch

from ssd.process import losses
from ssd.training.log import read_log

from ..conftest import TINY, run_script
from .runs import TRAIN, final_tensors


@pytest.fixture
def broken_loss(monkeypatch):
    """Make the loss of chosen calls NaN."""
    plain, calls = losses.denoising_loss, [0]

    def install(bad_calls) -> None:
        def loss(*arguments):
            calls[0] += 1
            return plain(*arguments) * (float("nan") if calls[0] in bad_calls else 1.0)

        monkeypatch.setattr(losses, "denoising_loss", loss)

    return install


def test_a_bad_step_is_skipped_and_counted(tmp_path, broken_loss) -> None:
    broken_loss({3})
    done = run_script(TRAIN, *TINY, "--data", "digits", "--out", tmp_path / "x", "--max_steps", "5")
    assert done.code == 0, done.err
    assert [row["bad_steps"] for row in read_log(tmp_path / "x" / "log.csv")] == ["0", "0", "1", "1", "1"]
    for value in final_tensors(tmp_path / "x", 5).values():
        assert value.isfinite().all()


def test_a_save_on_a_bad_step_has_the_good_weights(tmp_path, broken_loss) -> None:
    broken_loss({4})
    flags = [*TINY, "--data", "digits", "--out", tmp_path / "x", "--save_every", "1", "--checkpoints_total_limit", "9"]
    assert run_script(TRAIN, *flags, "--max_steps", "4").code == 0
    before, after = final_tensors(tmp_path / "x", 3), final_tensors(tmp_path / "x", 4)
    assert all((before[key] == after[key]).all() for key in before)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_full_memory_is_one_line_with_the_way_out(tmp_path, monkeypatch, error: RuntimeError) -> None:
    def loss(*arguments):
        raise error

    monkeypatch.setattr(losses, "denoising_loss", loss)
    done = run_script(TRAIN, *TINY, "--data", "digits", "--out", tmp_path / "x", "--max_steps", "5")
    assert done.code == 1
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "full with 4 images at once" in lines[0]
    assert "--resume and --micro_batch_size 2, which changes no step" in lines[0]
    assert "Traceback" not in done.err


def test_many_bad_steps_stop_the_run_and_name_the_last_checkpoint(tmp_path, broken_loss) -> None:
    broken_loss(set(range(5, 100)))
    flags = ["--data", "digits", "--out", tmp_path / "x", "--max_steps", "50", "--save_every", "4"]
    done = run_script(TRAIN, *TINY, *flags, "--max_bad_steps", "3")
    assert done.code == 1
    assert "3 steps in a row" in done.err
    assert "step_00000004: try a lower --learning_rate" in done.err
    assert sorted(path.name for path in (tmp_path / "x/checkpoints").glob("step_*"))[-1] == "step_00000004"
