"""Pictures smaller than --res train the levels that they fill, and no others."""

from collections import Counter

import pytest
import torch

from ssd.data import open_dataset
from ssd.data.mixed_sizes import LevelImages, without_enlarging
from ssd.operators.resize import resize_operator
from ssd.process import ScaleSpaceProcess
from ssd.process.losses import training_pair
from ssd.training.batches import Batch, TrainingBatches
from ssd.training.build import build_scheduler, build_unet, level_sizes
from ssd.training.config import TrainConfig
from ssd.training.images import Position
from ssd.training.log import read_log

from ..conftest import TINY, run_script
from .runs import GROUPS, TRAIN, assert_same_run, final_tensors, largest_difference, logged, run_two
from .small_pictures import NOTE, write_pictures
from .test_batches import assert_same

SMALL = [*TINY, *GROUPS, "--levels", "3", "--block_out_channels", "[32,32,32]", "--small_images", "levels"]
ROUTES = ["--transition_probability", "0.4", "--resolution_schedule", "equal"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures")


def parts_of(folder, **settings):
    chosen = {"resolution_schedule": "equal", "transition_probability": 0.4, "random_flip": False} | settings
    widths = {"block_out_channels": [32, 32, 32], "layers_per_block": 1, "global_batch_size": 4, "num_workers": 0}
    config = TrainConfig(res=16, data=f"folder:{folder}", out="x", levels=3, **widths, **chosen)
    images = without_enlarging(open_dataset(config.data, 16), level_sizes(config), "levels")
    return config, images, build_scheduler(config).process


def batches(folder, count: int = 60, start: Position | None = None, rank: int = 0, world_size: int = 1, **settings):
    config, images, process = parts_of(folder, **settings)
    made = TrainingBatches(config, images, process, None, start or Position(), rank, world_size)
    return [batch for batch, _ in zip(made, range(count))]


def pictures(batch: Batch, images: LevelImages, process: ScaleSpaceProcess) -> list[int]:
    """Which pictures a batch holds, by their values at its target's size."""
    level = process.resolution.level_of_size(batch.output_size)
    starts = process.resolution.level_starts
    candidates = [index for index in range(len(images)) if images.levels[index] <= level]
    at_size = {
        index: process.operator(starts[images.levels[index]], starts[level]).forward(images[index]["image"])
        for index in candidates
    }
    found = [index for image in batch.x_0 for index in candidates if (at_size[index] - image).abs().max() < 1e-5]
    assert len(found) == len(batch.x_0)
    return found


def test_a_batch_holds_the_pictures_that_fill_its_finest_level(folder) -> None:
    _, images, process = parts_of(folder)
    seen: dict[int, Counter] = {0: Counter(), 1: Counter(), 2: Counter()}
    for batch in batches(folder, 100):
        assert batch.x_0.shape[-2:] == batch.output_size
        level = process.resolution.level_of_size(batch.output_size)
        found = pictures(batch, images, process)
        assert (images.levels[found] <= level).all()
        seen[level].update(found)
    for level, counts in seen.items():  # every picture that may be there, is
        assert set(counts) == set(range({0: 4, 1: 7, 2: 8}[level]))


@pytest.mark.parametrize("gain", [1.0, 1.5])
@pytest.mark.parametrize("prediction_type", ["sample", "preconditioned"])
def test_states_and_targets_are_those_of_any_image_that_has_the_picture_at_its_level(
    folder, gain: float, prediction_type: str
) -> None:
    """x_0 = D^+ y has the picture y there, at full resolution: all that follows must agree, in float64."""
    moments = {"mean": [0.1, 0.0, -0.2], "variances": [0.3, 0.25, 0.2]}
    _, _, process = parts_of(folder, level_gain=gain, data_moments=moments)
    y = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    matrix = resize_operator((16, 16), (8, 8), "bilinear").matrices.matrix_h
    inverse = torch.linalg.pinv(matrix)
    x_0 = inverse @ y @ inverse.T
    assert (matrix @ x_0 @ matrix.T - y).abs().max() < 1e-12
    first = process.resolution.level_starts
    for t in (first[1] + 1, first[2] - 1, first[2], first[2] + 1, 999):
        noise = torch.randn(2, 3, *process.size(t), dtype=torch.float64)
        times = torch.tensor([t, t])
        small, full = (training_pair(process, clean, times, noise, prediction_type) for clean in (y, x_0))
        for one, other in zip(small, full):
            assert (one - other).abs().max() < 1e-10
        assert (process.target(y, times) - process.target(x_0, times)).abs().max() < 1e-10
    with pytest.raises(ValueError, match="s <= t"):  # the change to 16 x 16 has a target that the picture lacks
        process.target(y, first[1])


def test_small_pictures_touch_only_the_parameters_of_their_levels(folder) -> None:
    config, images, process = parts_of(folder)
    unet = build_unet(config)
    sizes = {0: "16 x 16", 1: "8 x 8", 2: "4 x 4"}
    with_gradient: dict[int, set[str]] = {level: set() for level in sizes}
    for batch in batches(folder, 60):
        finest = process.resolution.level_of_size(batch.output_size)
        network_input, target = training_pair(process, batch.x_0, batch.t, batch.noise)
        output = unet(network_input, batch.t, output_size=batch.output_size).sample
        unet.zero_grad(set_to_none=True)
        (output - target).square().mean().backward()
        coarsest = int(images.levels[pictures(batch, images, process)].max())
        assert coarsest <= finest
        with_gradient[coarsest] |= {name for name, value in unet.named_parameters() if value.grad is not None}
    of_stage = [(f"down_blocks.{stage}.", f"up_blocks.{2 - stage}.") for stage in range(3)]
    for coarsest, names in with_gradient.items():
        assert names, f"no batch had a picture of {sizes[coarsest]} as its smallest"
        for stage in range(coarsest):
            assert not [name for name in names if name.startswith(of_stage[stage])], (coarsest, stage)
        assert [name for name in names if name.startswith(of_stage[coarsest])]


def test_batches_are_a_function_of_seed_and_position(folder) -> None:
    whole = batches(folder, random_flip=True)
    for k in (1, 7, 30):
        for found, expected in zip(batches(folder, 3, whole[k - 1].end, random_flip=True), whole[k : k + 3]):
            assert_same(found, expected)
    halves = [batches(folder, 20, rank=rank, world_size=2, random_flip=True) for rank in (0, 1)]
    for one, other, expected in zip(*halves, whole):
        assert torch.equal(torch.cat([one.x_0, other.x_0]), expected.x_0)
        assert torch.equal(torch.cat([one.noise, other.noise]), expected.noise)


def test_an_interrupted_run_continues_bit_for_bit(folder, tmp_path) -> None:
    flags = [*SMALL, *ROUTES, "--data", f"folder:{folder}", "--max_steps", "30", "--save_every", "10"]
    done = run_script(TRAIN, *flags, "--out", tmp_path / "whole")
    assert done.code == 0, done.err
    assert f"note: {NOTE}" in done.out
    assert "enlarged" not in done.out
    assert run_script(TRAIN, *flags, "--out", tmp_path / "parts", "--max_steps", "13").code == 0
    done = run_script(TRAIN, *flags, "--out", tmp_path / "parts", "--resume", "--num_workers", "1")
    assert done.code == 0, done.err
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    row = read_log(tmp_path / "whole" / "log.csv")
    assert all(sum(bool(r[f"loss_{side}x{side}"]) for r in row) for side in (16, 8, 4))
    other = [*flags, "--out", tmp_path / "parts", "--resume", "--small_images", "upscale"]
    run_script(TRAIN, *other).assert_one_line_error("--small_images upscale: it was started with levels")


def test_two_processes_are_one(folder, tmp_path) -> None:
    """By Adam's first moments, which are linear in the gradients; weights that stand still keep round-off as small."""
    flags = [*SMALL, *ROUTES, "--data", f"folder:{folder}", "--max_steps", "5", "--routes_per_step", "2"]
    flags += ["--global_batch_size", "8", "--learning_rate", "1e-20"]
    done = run_script(TRAIN, *flags, "--out", tmp_path / "one")
    assert done.code == 0, done.err
    done = run_two(tmp_path / "two", *flags)
    assert done.code == 0, done.err
    one, two = (
        {key: value for key, value in final_tensors(tmp_path / run, 5).items() if key.endswith(".exp_avg")}
        for run in ("one", "two")
    )
    assert largest_difference(one, two) < 1e-6 * max(float(value.abs().max()) for value in one.values())


def test_upscaling_and_skipping_do_what_they_say(folder, tmp_path) -> None:
    flags = [*SMALL, "--data", f"folder:{folder}", "--max_steps", "5"]
    done = run_script(TRAIN, *flags, "--small_images", "upscale", "--out", tmp_path / "upscale")
    assert "note: 6 of 10 pictures read were smaller than the size asked for, and enlarged." in done.out
    done = run_script(TRAIN, *flags, "--small_images", "skip", "--out", tmp_path / "skip")
    assert "note: of 10 pictures 4 fill 16 x 16; 6 fill none of these and are left out." in done.out
    assert "enlarged" not in done.out
    assert "Data: 4 images" in done.out
    large = write_pictures(tmp_path / "large", (16, 20, 16, 24))
    runs = [f"folder:{large}", "--max_steps", "5"]
    for way in ("upscale", "levels", "skip"):
        out = tmp_path / f"large_{way}"
        assert run_script(TRAIN, *SMALL, "--data", *runs, "--small_images", way, "--out", out).code == 0
        assert logged(out) == logged(tmp_path / "skip")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--data", "digits"], ["--small_images levels needs pictures whose sizes are known", "made up at any size"]),
        (["--data", "wds:x-{0..1}.tar"], []),
        (["--process", "corrective_noise"], ["--process corrective_noise changes: use skip"]),
        (["--blur_sigma_max", "2"], ["--blur_sigma_max changes: use skip"]),
        (["--res", "32"], ["None of the 10 pictures", "fills 32 x 32", "--small_images upscale"]),
    ],
)
def test_what_cannot_be_had_is_one_line(flags, parts, folder, tmp_path) -> None:
    done = run_script(TRAIN, *SMALL, "--data", f"folder:{folder}", *flags, "--out", tmp_path / "x")
    done.assert_one_line_error(*parts)
    assert not (tmp_path / "x").exists()
