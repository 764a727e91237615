"""Routes, loss, logs, checkpoints and the run folder."""

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ssd import SSDScheduler
from ssd.errors import UsageError
from ssd.losses import min_snr_loss, training_pair
from ssd.noise_schedule import NoiseSchedule, make_betas
from ssd.resolution_schedule import ResolutionSchedule, pyramid
from ssd.training.checkpoints import TrainState, list_checkpoints, load_checkpoint, save_checkpoint
from ssd.training.config import CHANNEL_MULTIPLIERS, TrainConfig, build_scheduler, build_unet
from ssd.training.logs import LossLog
from ssd.training.routes import RouteSampler

SCHEDULE = ResolutionSchedule.from_curve(pyramid(32, 3), 1000)


@given(seed=st.integers(0, 2**31), step=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_batch_has_one_route(seed: int, step: int) -> None:
    batch = RouteSampler(SCHEDULE, seed).draw(step, 16)
    timesteps = batch.timesteps.tolist()
    assert {SCHEDULE.level(t) for t in timesteps} == {batch.level}
    assert {SCHEDULE.size(t - 1) for t in timesteps} == {batch.output_size}


def test_level_changes_fill_their_batch() -> None:
    schedule = ResolutionSchedule.from_switches(pyramid(8, 2), 4, [2])
    sampler = RouteSampler(schedule, 0)
    batches = [sampler.draw(step, 8) for step in range(40)]
    changes = [batch for batch in batches if batch.level == 1 and batch.output_size == (8, 8)]
    assert changes
    assert all(set(batch.timesteps.tolist()) == {2} for batch in changes)


def test_all_processes_take_the_same_route_with_their_own_timesteps() -> None:
    sampler = RouteSampler(SCHEDULE, 0)
    for step in range(20):
        one, other = sampler.draw(step, 8, rank=0), sampler.draw(step, 8, rank=1)
        assert (one.level, one.output_size) == (other.level, other.output_size)
        assert torch.equal(one.timesteps, sampler.draw(step, 8, rank=0).timesteps)
    assert not torch.equal(one.timesteps, other.timesteps)


def test_the_marginal_of_t_is_uniform() -> None:
    sampler = RouteSampler(ResolutionSchedule.from_curve(pyramid(8, 3), 50), seed=0)
    # One image per batch: images of a batch share their level and would not be independent.
    counts = np.bincount([int(sampler.draw(step, 1).timesteps) for step in range(20_000)], minlength=50)
    assert chisquare(counts).pvalue > 0.001


def test_training_pair_and_loss() -> None:
    process = SSDScheduler(sample_size=16, num_levels=2).process
    x_0 = torch.rand(2, 3, 16, 16) * 2 - 1
    x_t, target = training_pair(process, x_0, torch.tensor([750, 750]), torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(target, x_0)  # from the level change on the target is the larger image
    torch.testing.assert_close(x_t, process.signal(750).float() * process.degrade(x_0, 750))
    _, target = training_pair(process, x_0, torch.tensor([800, 900]), torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(target, process.degrade(x_0, 999))

    t = torch.tensor([0, 700])
    loss = min_snr_loss(process, torch.full((2, 3, 4, 4), 2.0), torch.zeros(2, 3, 4, 4), t)
    snr = NoiseSchedule.from_betas(make_betas()).snr[700]
    torch.testing.assert_close(loss, torch.tensor([5.0 * 4, float(snr) * 4]))


def test_log_has_a_column_per_level_and_survives_a_restart(tmp_path) -> None:
    path = tmp_path / "log.csv"
    log = LossLog(path, ["loss_8x8", "loss_4x4"])
    log.add(0, torch.tensor(1.0), 4)
    log.add(1, torch.tensor(3.0), 4)
    assert log.write(10)["loss"] == 2.0
    log.add(0, torch.tensor(5.0), 4)
    assert "loss_4x4" not in log.write(20)
    LossLog(path, ["loss_8x8", "loss_4x4"], first_step=10)
    rows = list(csv.DictReader(path.open()))
    assert [(row["step"], row["loss_8x8"], row["loss_4x4"]) for row in rows] == [("10", "1", "3")]


def train_state(seed: int) -> TrainState:
    torch.manual_seed(seed)
    unet, ema_unet = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=0.1)
    for _ in range(3):
        unet(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    return TrainState(unet, ema_unet, optimizer, ema_updates=3, step=3)


def test_checkpoint_round_trip(tmp_path) -> None:
    state, other = train_state(0), train_state(1)
    checkpoint = save_checkpoint(state, tmp_path, keep=2)
    assert {file.suffix for file in checkpoint.iterdir()} == {".safetensors", ".json"}
    other.step = 0
    load_checkpoint(other, checkpoint)
    assert (other.step, other.ema_updates) == (3, 3)
    for one, two in zip(state.unet.parameters(), other.unet.parameters()):
        assert torch.equal(one, two)
    for s in (state, other):  # the next step is the same: Adam's moments and counts came back
        s.optimizer.zero_grad()
        s.unet(torch.ones(1, 3)).sum().backward()
        s.optimizer.step()
    assert torch.equal(state.unet.weight, other.unet.weight)


def test_only_the_newest_complete_checkpoints_are_kept(tmp_path) -> None:
    state = train_state(0)
    (tmp_path / ".step_00000009.tmp").mkdir()  # left by a crash
    for state.step in range(1, 6):
        save_checkpoint(state, tmp_path, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000004", "step_00000005"]
    assert json.loads((tmp_path / "step_00000005" / "state.json").read_text())["step"] == 5


@pytest.mark.parametrize("res", CHANNEL_MULTIPLIERS)
def test_default_networks_build(res: int) -> None:
    config = TrainConfig(res=res, data="digits", out="x", levels=3)
    with torch.device("meta"):
        unet = build_unet(config)
    assert unet.config.time_embed_channels == 128
    assert build_scheduler(config).resolutions == unet.stage_sizes[:3]
    assert config.total_steps == (1_000_000 if res <= 64 else 300_000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "--batch_size must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "--learning_rate must be positive"),
        ({"ema_decay": 1.0}, r"--ema_decay must be in \[0, 1\)"),
        ({"resume": True, "overwrite": True}, "contradict"),
    ],
)
def test_wrong_settings_are_explained(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(res=16, data="digits", out="x", **settings)
