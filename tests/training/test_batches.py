"""Batches: the order of the images, and all that is random about them."""

import pytest
import torch
from torch.utils.data import Dataset

from ssd.process import NoiseSchedule, ResolutionSchedule, ScaleSpaceProcess, make_betas, pyramid
from ssd.training.batches import Batch, TrainingBatches
from ssd.training.config import TrainConfig
from ssd.training.images import Position

SCHEDULE = ResolutionSchedule.from_curve(pyramid(4, 2), 1000)
PROCESS = ScaleSpaceProcess(NoiseSchedule.from_betas(make_betas()), SCHEDULE)


class Numbered(Dataset):
    """Ten images, each full of its own index, brighter on the right."""

    levels = None

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict:
        return {"image": torch.full((3, 4, 4), float(index)) + torch.arange(4.0) / 10, "label": index % 3}


def batches(
    count: int = 12, start: Position | None = None, rank: int = 0, world_size: int = 1, **settings
) -> list[Batch]:
    """The first batches of a run, or those after `start`."""
    chosen = {"global_batch_size": 4, "num_workers": 0, "transition_probability": 0.3} | settings
    config = TrainConfig(res=4, data="digits", out="x", levels=2, **chosen)
    no_class = 3 if config.class_conditional else None
    made = TrainingBatches(config, Numbered(), PROCESS, no_class, start or Position(), rank, world_size)
    return [batch for batch, _ in zip(made, range(count))]


def indices(batch: Batch) -> list[int]:
    return batch.x_0[:, 0].amin(dim=(1, 2)).int().tolist()


def parts(batch: Batch) -> dict[str, torch.Tensor]:
    named = {"x_0": batch.x_0, "t": batch.t, "noise": batch.noise, "labels": batch.labels}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def assert_same(found: Batch, expected: Batch) -> None:
    assert (found.numbers, found.output_size, found.level, found.end) == (
        expected.numbers,
        expected.output_size,
        expected.level,
        expected.end,
    )
    assert parts(found).keys() == parts(expected).keys()
    for name, tensor in parts(expected).items():
        assert torch.equal(parts(found)[name], tensor), name


def test_everything_is_seen_once_per_epoch() -> None:
    seen = [index for batch in batches(10) for index in indices(batch)]
    for epoch in range(4):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert seen[:10] != seen[10:20]


def test_a_run_starts_anywhere() -> None:
    whole = batches(class_conditional=True)
    for k in (1, 4, 9):
        for found, expected in zip(batches(3, whole[k - 1].end, class_conditional=True), whole[k : k + 3]):
            assert_same(found, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_share_a_batch_and_workers_change_nothing(workers: int) -> None:
    whole = batches(6, class_conditional=True)
    halves = [batches(6, rank=rank, world_size=2, class_conditional=True, num_workers=workers) for rank in (0, 1)]
    for one, other, expected in zip(*halves, whole):
        assert one.end == other.end == expected.end
        assert (
            (one.level, one.output_size) == (other.level, other.output_size) == (expected.level, expected.output_size)
        )
        assert [*one.numbers, *other.numbers] == list(expected.numbers)
        for name, tensor in parts(expected).items():
            assert torch.equal(torch.cat([parts(one)[name], parts(other)[name]]), tensor), name


def test_coarse_levels_can_have_larger_batches() -> None:
    made = batches(20, level_batch_scale=3.0)
    assert {batch.level: len(batch.x_0) for batch in made} == {0: 4, 1: 12}
    assert [batch.numbers.stop for batch in made[:-1]] == [batch.numbers.start for batch in made[1:]]
    assert made[-1].end == Position(20, sum(len(batch.x_0) for batch in made))


def test_sizes_follow_the_route() -> None:
    for batch in batches(40):
        sizes = {SCHEDULE.size(t) for t in batch.t.tolist()}
        assert sizes == {tuple(batch.noise.shape[-2:])}
        assert {SCHEDULE.size(t - 1) for t in batch.t.tolist()} == {batch.output_size}
        assert batch.noise.dtype == torch.float32


def test_noise_is_white_and_every_image_has_its_own() -> None:
    noise = torch.cat([batch.noise.flatten(1)[:, :12] for batch in batches(200)])
    assert len(noise.unique(dim=0)) == 800
    bound = 5 / len(noise) ** 0.5
    assert noise.mean(dim=0).abs().max() < bound
    assert (torch.cov(noise.T) - torch.eye(12)).abs().max() < 2 * bound


def test_about_half_of_the_images_are_mirrored() -> None:
    made = batches(100)
    mirrored = torch.cat([batch.x_0[:, 0, 0, 0] > batch.x_0[:, 0, 0, -1] for batch in made]).float()
    assert mirrored.mean().item() == pytest.approx(0.5, abs=5 * 0.5 / len(mirrored) ** 0.5)
    plain = batches(20, random_flip=False)
    assert all((batch.x_0[:, 0, 0, 0] < batch.x_0[:, 0, 0, -1]).all() for batch in plain)


def test_labels_are_dropped_as_often_as_asked() -> None:
    made = batches(200, class_conditional=True, label_dropout=0.25)
    labels = torch.cat([batch.labels for batch in made])
    own = torch.tensor([index % 3 for batch in made for index in indices(batch)])
    dropped = labels == 3
    assert torch.equal(labels[~dropped], own[~dropped])
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=5 * 0.433 / len(labels) ** 0.5)
    assert all(batch.labels is None for batch in batches(2))


def test_moving_switches_change_the_sizes_and_nothing_remembers_them() -> None:
    jittered = batches(switch_jitter=0.5)
    assert len({batch.process.required_timesteps for batch in jittered}) > 6
    for batch in jittered:
        assert batch.noise.shape[-2:] == batch.process.size(batch.t)
        assert batch.output_size == batch.process.size(batch.t - 1)
    for found, expected in zip(batches(6, start=jittered[5].end, switch_jitter=0.5), jittered[6:]):
        assert_same(found, expected)
        assert found.process.required_timesteps == expected.process.required_timesteps
