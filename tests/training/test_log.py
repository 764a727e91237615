"""The log of a run."""

import pytest
import torch
from accelerate import Accelerator

from ssd.scheduling_ssd import SSDScheduler
from ssd.training.batches import Batch
from ssd.training.images import Position
from ssd.training.log import CsvTracker, TrainingLog, read_log

LEVELS = ["8x8", "4x4"]
NO_RESIDUAL = torch.tensor([float("nan")])
PROCESS = SSDScheduler(sample_size=8, num_levels=2).process


def batch(level: int, images: int = 4) -> Batch:
    x = torch.zeros(images, 3, 8, 8)
    return Batch(x, torch.zeros(images), x, None, PROCESS, (8, 8), level, 1.0, range(images), Position(), 0.25)


def test_rows_are_means_per_level_since_the_last_row() -> None:
    log = TrainingLog(Accelerator(cpu=True), LEVELS)
    log.add_batch(batch(0), torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.7]))
    log.add_step(torch.tensor(2.0), 0)
    log.add_batch(batch(0), torch.tensor([4.0]), torch.tensor([1.0]))
    log.add_step(torch.tensor(4.0), 0)
    log.add_batch(batch(1), torch.tensor([9.0]), NO_RESIDUAL)
    log.add_step(torch.tensor(3.0), 1)
    row = log.row(torch.tensor([3.0, 1.0]), stop=True)
    assert (row.values["loss"], row.values["loss_8x8"], row.values["loss_4x4"]) == (5.0, 3.0, 9.0)
    assert row.values["residual_8x8"] == pytest.approx(0.8)
    assert "residual_4x4" not in row.values
    assert row.values["gradient_share_8x8"] == pytest.approx(20 / 29)
    assert row.values["gradient_share_4x4"] == pytest.approx(9 / 29)
    assert (row.values["gradient_norm"], row.values["bad_steps"]) == (3.0, 3.0)
    assert (row.bad_in_a_row, row.stop) == (1, True)
    assert row.values["images_per_second"] > 0
    assert row.values["loader_share"] > 0
    log.add_batch(batch(0), torch.tensor([7.0]), NO_RESIDUAL)
    log.add_step(torch.tensor(3.0), None)  # of batches of several levels
    row = log.row(torch.zeros(2), stop=False)
    assert row.values["loss"] == 7.0
    assert not [name for name in row.values if "4x4" in name or name.startswith("gradient_share")]
    assert (row.bad_in_a_row, row.stop) == (0, False)


def test_the_file_survives_a_restart(tmp_path) -> None:
    path = tmp_path / "log.csv"
    first = CsvTracker(path, LEVELS)
    first.start()
    first.log({"loss": 2.0, "loss_8x8": 1.0, "loss_4x4": 3.0}, step=10)
    first.log({"loss": 5.0, "loss_8x8": 5.0}, step=20)
    assert [row["loss_4x4"] for row in read_log(path)] == ["3", ""]
    second = CsvTracker(path, LEVELS, last_step=10)
    second.start()
    second.log({"loss": 4.0}, step=20)
    assert [(row["step"], row["loss"]) for row in read_log(path)] == [("10", "2"), ("20", "4")]
    assert set(tmp_path.iterdir()) == {path}
