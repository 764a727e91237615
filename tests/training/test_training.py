"""Routes, loss, logs, checkpoints and the run folder."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare

from flexi_unet import FlexiUNet2DModel
from ssd import SSDScheduler
from ssd.commands.errors import TrainingStopped, UsageError
from ssd.process.losses import min_snr_loss, training_pair
from ssd.process.noise import NoiseSchedule, make_betas
from ssd.process.resolution import ResolutionSchedule, pyramid
from ssd.training import checkpoints, plot
from ssd.training.checkpoints import (
    Progress,
    TrainState,
    find_newest,
    list_checkpoints,
    load_checkpoint,
    read_progress,
    save_checkpoint,
)
from ssd.training.config import CHANNEL_MULTIPLIERS, TrainConfig, build_scheduler, build_unet
from ssd.training.ema import EmaNetworks
from ssd.training.learning_rate import learning_rate_at
from ssd.training.logs import LossLog
from ssd.training.routes import RouteSampler
from ssd.training.sample_order import BatchSizes, EndlessBatches

SCHEDULE = ResolutionSchedule.from_curve(pyramid(32, 3), 1000)


def draw(sampler: RouteSampler, step: int, images: range):
    route = sampler.route(step)
    return route, sampler.timesteps(route, images).tolist()


@given(seed=st.integers(0, 2**31), step=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_batch_has_one_route(seed: int, step: int) -> None:
    route, timesteps = draw(RouteSampler(SCHEDULE, seed), step, range(16))
    assert {SCHEDULE.level(t) for t in timesteps} == {route.level}
    assert {SCHEDULE.size(t - 1) for t in timesteps} == {route.output_size}
    assert route.weight == 1.0


def test_level_changes_fill_their_batch() -> None:
    schedule = ResolutionSchedule.from_switches(pyramid(8, 2), 4, [2])
    sampler = RouteSampler(schedule, 0)
    batches = [draw(sampler, step, range(8)) for step in range(40)]
    changes = [timesteps for route, timesteps in batches if route.change is not None]
    assert changes
    assert all(set(timesteps) == {2} for timesteps in changes)
    assert not any(2 in timesteps for route, timesteps in batches if route.change is None)


def test_timesteps_belong_to_the_image_however_the_batch_is_split() -> None:
    sampler = RouteSampler(SCHEDULE, 0)
    for step in range(10):
        _, whole = draw(sampler, step, range(100, 108))
        assert whole == draw(sampler, step, range(100, 104))[1] + draw(sampler, step, range(104, 108))[1]
    assert draw(sampler, 0, range(8))[1] != draw(sampler, 0, range(8, 16))[1]


@pytest.mark.parametrize("probability", [None, 0.3])
def test_the_marginal_of_t(probability: float | None) -> None:
    """Uniform by default; with a transition probability, the importance weights make it uniform again."""
    schedule = ResolutionSchedule.from_curve(pyramid(8, 3), 50)
    sampler = RouteSampler(schedule, 0, probability)
    # One image per batch: images of a batch share their level and would not be independent.
    draws = [(sampler.route(step), step) for step in range(20_000)]
    counts, weighted = np.zeros(50), np.zeros(50)
    for route, step in draws:
        t = int(sampler.timesteps(route, [step]))
        counts[t] += 1
        weighted[t] += route.weight
    if probability is None:
        assert chisquare(counts).pvalue > 0.001
    else:
        assert counts[list(schedule.level_changes)].sum() / 20_000 == pytest.approx(0.3, abs=0.015)
        np.testing.assert_allclose(weighted, 400, rtol=0.25)
        assert weighted.sum() == pytest.approx(20_000, rel=0.02)
        plain = RouteSampler(schedule, 0, probability, importance_weights=False)
        assert plain.route(0).weight == 1.0


def test_expected_loss_is_unchanged_by_the_transition_probability() -> None:
    """A fixed toy loss per timestep, averaged exactly over the distribution of t."""
    schedule = ResolutionSchedule.from_curve(pyramid(8, 3), 50)
    toy = np.linspace(1, 3, 50) ** 2
    sampler = RouteSampler(schedule, 0, transition_probability=0.25)
    changes = list(schedule.level_changes)
    others = [t for t in range(50) if t not in changes]
    weight = {route.change is not None: route.weight for route in (sampler.route(step) for step in range(200))}
    expected = 0.25 * weight[True] * toy[changes].mean() + 0.75 * weight[False] * toy[others].mean()
    assert expected == pytest.approx(toy.mean(), rel=1e-12)


def batches_of(first_batch=0, first_image=0, rank=0, world_size=1, count=12, scale=1.0, size=4) -> list[list[int]]:
    sampler = RouteSampler(SCHEDULE, 0)
    order = EndlessBatches(10, sampler, BatchSizes(size, scale), 0, first_batch, first_image, rank, world_size)
    return [batch for batch, _ in zip(order, range(count))]


def test_order_visits_everything_once_per_epoch() -> None:
    indices = [index for batch in batches_of() for index in batch]
    for epoch in range(4):
        assert sorted(indices[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert indices[:10] != indices[10:20]


def test_order_starts_anywhere_and_is_shared_by_processes() -> None:
    whole = batches_of()
    assert batches_of(first_batch=4, first_image=16, count=8) == whole[4:]
    parts = [batches_of(rank=rank, world_size=2, size=2) for rank in (0, 1)]
    assert [one + other for one, other in zip(*parts)] == whole


def test_coarse_levels_can_have_larger_batches() -> None:
    sampler, sizes = RouteSampler(SCHEDULE, 0), BatchSizes(4, 4.0)
    assert [sizes.at(level) for level in (0, 1, 2)] == [4, 16, 64]
    assert [len(batch) for batch in batches_of(scale=4.0)] == [sizes.at(sampler.route(k).level) for k in range(12)]


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
    log.add_step(2.5, 0.0)
    assert "loss_4x4" not in log.write(20)
    LossLog(path, ["loss_8x8", "loss_4x4"], first_step=10)
    rows = list(csv.DictReader(path.open()))
    assert [(row["step"], row["loss_8x8"], row["loss_4x4"]) for row in rows] == [("10", "1", "3")]


def train_state(seed: int) -> TrainState:
    torch.manual_seed(seed)
    unet = FlexiUNet2DModel(8, block_out_channels=(32, 32), layers_per_block=1)
    ema = EmaNetworks(unet, [0.9, 0.99], torch.device("cpu"))
    state = TrainState(unet, ema, torch.optim.AdamW(unet.parameters(), lr=0.01))
    for _ in range(3):
        one_step(state)
    return state


def one_step(state: TrainState) -> None:
    state.optimizer.zero_grad()
    state.unet(torch.ones(1, 3, 8, 8), 5).sample.sub(1).square().mean().backward()
    state.optimizer.step()
    state.ema.update(state.unet)
    state.progress.step += 1


def all_tensors(state: TrainState) -> list[torch.Tensor]:
    return [*state.unet.parameters(), *(p for network in state.ema.networks for p in network.parameters())]


def save(state: TrainState, folder, keep=2, milestone_every=0):
    return save_checkpoint(state, folder, {"seed": 0}, keep, milestone_every)


def test_checkpoint_round_trip(tmp_path) -> None:
    state, other = train_state(0), train_state(1)
    state.progress = Progress(step=3, batches=6, images=24, global_batch=4, hours=0.5)
    checkpoint = save(state, tmp_path)
    assert {file.suffix for file in checkpoint.iterdir()} == {".safetensors", ".json"}
    assert (tmp_path / "latest").read_text() == checkpoint.name + "\n"
    load_checkpoint(other, checkpoint)
    assert other.progress == state.progress == read_progress(checkpoint)
    assert other.ema.updates == 3
    for s in (state, other):  # the next step is the same too: Adam's moments and the averages' counts came back
        one_step(s)
    assert all(torch.equal(a, b) for a, b in zip(all_tensors(state), all_tensors(other)))
    described = json.loads((checkpoint / "state.json").read_text())
    assert described["versions"]["torch"] == torch.__version__
    assert described["settings"] == {"seed": 0}


def test_newest_checkpoints_and_milestones_are_kept(tmp_path) -> None:
    state = train_state(0)
    (tmp_path / ".step_00000009.tmp").mkdir()  # left by a crash
    for step in range(1, 8):
        state.progress.step = step
        save(state, tmp_path, milestone_every=3)
    kept = ["step_00000003", "step_00000006", "step_00000007"]
    assert [path.name for path in list_checkpoints(tmp_path)] == kept


@pytest.mark.parametrize("damage", ["truncated", "missing", "emptied", "state"])
def test_a_damaged_checkpoint_is_skipped_and_named(tmp_path, damage: str) -> None:
    state = train_state(0)
    good = save(state, tmp_path)
    state.progress.step += 1
    bad = save(state, tmp_path)
    file = bad / "ema_1.safetensors"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "missing":
        file.unlink()
    elif damage == "emptied":
        for path in bad.iterdir():
            path.unlink()
    else:
        (bad / "state.json").write_text("{")
    found, notes = find_newest(tmp_path)
    assert found == good
    assert len(notes) == 1
    assert bad.name in notes[0]


@pytest.mark.parametrize("where", ["before", "during"])
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, where: str) -> None:
    state = train_state(0)
    good = save(state, tmp_path)
    state.progress.step += 1
    if where == "before":
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    else:
        write = checkpoints.save_file

        def fail_at_the_optimizer(tensors, path):
            write(tensors, path)
            if path.name.startswith("optimizer"):
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoints, "save_file", fail_at_the_optimizer)
    with pytest.raises(TrainingStopped, match=r"needs \d+ MiB\. step_00000003 is intact"):
        save(state, tmp_path)
    assert find_newest(tmp_path) == (good, [])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".step")] == []


def test_ema_follows_the_weights_with_warm_up() -> None:
    unet = FlexiUNet2DModel(8, block_out_channels=(32, 32), layers_per_block=1)
    ema = EmaNetworks(unet, [0.5, 0.9999], torch.device("cpu"))
    start = unet.conv_in.weight.detach().clone()
    with torch.no_grad():
        unet.conv_in.weight.add_(1)
    ema.update(unet)
    assert torch.equal(ema.networks[1].conv_in.weight, unet.conv_in.weight)  # the first update copies
    for _ in range(10):
        with torch.no_grad():
            unet.conv_in.weight.add_(1)
        ema.update(unet)
    distances = [float((unet.conv_in.weight - net.conv_in.weight).mean()) for net in ema.networks]
    assert 0 < distances[0] < distances[1] < float((unet.conv_in.weight - start).mean())
    assert ema.updates == 11
    assert not any(p.requires_grad for net in ema.networks for p in net.parameters())


def test_learning_rate_schedules() -> None:
    rates = [learning_rate_at(step, 1.0, "cosine", 10, 110) for step in range(111)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0)
    assert learning_rate_at(500, 1.0, "constant", 10, 110) == 1.0


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
        ({"ema_decays": [1.0]}, r"--ema_decays must be in \[0, 1\)"),
        ({"ema_decays": []}, "--ema_decays must be at least one number"),
        ({"transition_probability": 1.5}, r"--transition_probability must be in \(0, 1\)"),
        ({"out": ""}, "--out must be a folder"),
        ({"seed": 2**63}, r"--seed must be below 2\^63"),
    ],
)
def test_wrong_settings_are_explained(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**({"res": 16, "data": "digits", "out": "x"} | settings))


def test_plot_draws_runs_side_by_side(tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib")
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        log = LossLog(tmp_path / run / "log.csv", ["loss_8x8", "loss_4x4"])
        for step in range(1, 5):
            log.add(step % 2, torch.tensor(1.0 / step), 4)
            log.add_step(1.0, 0.0)
            log.write(step)
    plot.main([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "new" / "c.png"), "--smooth", "2"])
    assert Image.open(tmp_path / "new" / "c.png").size[0] > 1000
    steps, means = plot.read_losses(tmp_path / "a", smooth=2)["loss"]
    assert steps == [2, 4]
    assert means == pytest.approx([0.75, (1 / 3 + 1 / 4) / 2], rel=1e-4)
    with pytest.raises(SystemExit):
        plot.main([str(tmp_path)])
    assert "has no log.csv" in capsys.readouterr().err
