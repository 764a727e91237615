"""What --dry_run says a run will take: arithmetic by hand, warnings whose advice helps, and real measurements."""

from dataclasses import replace

import pytest
import torch

from flexi_unet import FlexiUNet2DModel
from flexi_unet.flops import count_gflops, count_kept_bytes
from ssd.training.config import TrainConfig
from ssd.training.engine import make_accelerator
from ssd.training.forecast import Forecast, forecast
from ssd.training.forecast_text import GOOD_PASSES, forecast_lines, forecast_warnings
from ssd.training.routes import BatchRoutes, RouteShare, route_shares
from ssd.training.setup import set_up
from ssd.training.timing import RouteTime, time_reading, time_routes

from ..conftest import TINY, run_script
from .runs import TRAIN
from .test_summary import parts

DAY = 86400


def config_of(**settings) -> TrainConfig:
    chosen = {"max_steps": 1000, "global_batch_size": 16, "save_every": 100, "num_workers": 2} | settings
    return TrainConfig(res=16, data="digits", out="unused", block_out_channels=[32, 32], levels=2, **chosen)


def made(**changes) -> Forecast:
    """Two routes: 3 of 4 batches take 0.2 s, the others 0.04 s."""
    settings = {name: changes.pop(name) for name in list(changes) if name in TrainConfig.__dataclass_fields__}
    routes = [
        RouteTime(RouteShare((16, 16), (16, 16), 0, 0, 0.75), 16, 16, kept=2**20, timed=16, seconds=0.2),
        RouteTime(RouteShare((8, 8), (8, 8), 1, 900, 0.25), 16, 16, kept=2**18, timed=4, seconds=0.04),
    ]
    forecast = Forecast(
        config_of(**settings),
        routes,
        update=0.01,
        reading=0.001,
        weights=2**20,
        resident=2**24,
        free_memory=2**30,
        free_disk=2**30,
        num_images=500,
    )
    return replace(forecast, **changes)


def test_the_arithmetic() -> None:
    plain = made()
    assert plain.computing == pytest.approx(0.75 * 0.2 + 0.25 * 0.04 + 0.01)
    assert plain.loading == pytest.approx(16 * 0.001 / 2)
    assert plain.step == plain.computing  # workers read meanwhile
    assert made(num_workers=0).step == pytest.approx(0.17 + 0.016)
    assert plain.hours == pytest.approx(1000 * 0.17 / 3600)
    assert made(steps_done=900).hours == pytest.approx(100 * 0.17 / 3600)
    assert plain.passes == pytest.approx(1000 * 16 / 500)
    assert made(num_processes=2).passes == pytest.approx(1000 * 32 / 500)
    assert made(routes_per_step=2).computing == pytest.approx(2 * 0.16 + 0.01)
    assert made(num_images=None).passes is None
    fixed = 2**24 + 4 * 2**20  # the program with its weights; gradients, two moments, one average
    assert plain.fixed_memory == fixed
    assert plain.memory == fixed + 16 * 2**20
    assert made(half=True).memory == fixed + 8 * 2**20
    assert (
        plain.disk == (3 + 1) * 4 * 2**20 + 2**20
    )  # three checkpoints and one being written, of four times the weights
    assert made(milestone_every=500).disk == (3 + 2 + 1) * 4 * 2**20 + 2**20


def test_an_ordinary_run_has_no_warning() -> None:
    assert forecast_warnings(made(), "cpu") == []


@pytest.mark.parametrize(
    ("changes", "parts", "fitting"),
    [
        (
            {"num_images": 200, "max_steps": 1_000_000, "routes": None},
            ["each of the 200 images would be seen 80,000 times", f"--max_steps {GOOD_PASSES * 200 // 16} "],
            {"max_steps": GOOD_PASSES * 200 // 16},
        ),
        (
            {"update": 25.83, "max_steps": 1_000_000, "num_images": 10**6},
            ["would take 301 days here", "--max_steps 3324 or", "--max_minutes 1440", "pictures32.yaml"],
            {"max_steps": 3324},
        ),
        (
            {"free_memory": 2**24},
            ["about 36 MiB of memory are needed", "16 MiB are free", "--micro_batch_size 8"],
            None,
        ),
        ({"free_memory": 2**20}, ["--gradient_checkpointing, or a smaller network"], None),
        ({"free_disk": 2**23}, ["8 MiB left", "17 MiB are needed", "--checkpoints_total_limit 1"], None),
        ({"reading": 0.1}, ["reading takes 0.8 s per step, longer than computing, 0.17 s", "ssd.data.prepare"], None),
    ],
    ids=["passes", "days", "memory", "no memory", "disk", "reading"],
)
def test_what_is_too_much_is_one_line_that_names_what_fits(changes, parts, fitting) -> None:
    if changes.pop("routes", 0) is None:  # so fast that time is no problem
        changes["routes"] = [replace(each, seconds=1e-3) for each in made().routes]
        changes |= {"update": 0.0, "reading": 0.0}
    [warning] = forecast_warnings(made(**changes), "cpu")
    assert "\n" not in warning
    for part in parts:
        assert part in warning
    if fitting is not None:
        assert forecast_warnings(made(**changes | fitting), "cpu") == []


def test_memory_fits_with_the_micro_batch_that_is_named() -> None:
    [warning] = forecast_warnings(made(free_memory=2**24), "cpu")
    named = int(warning.partition("--micro_batch_size ")[2].partition(",")[0])
    routes = [replace(each, at_once=named) for each in made().routes]
    assert forecast_warnings(made(free_memory=2**24, routes=routes), "cpu") == []
    assert forecast_warnings(made(free_memory=2**24, routes=[replace(e, at_once=named + 1) for e in routes]), "cpu")


@pytest.mark.parametrize("probability", [None, 0.3])
def test_shares_are_those_of_the_batches(probability) -> None:
    _, _, scheduler = parts(levels=2)
    shares = route_shares(scheduler.process, probability)
    assert sum(route.share for route in shares) == pytest.approx(1, rel=1e-12)
    drawn = BatchRoutes(scheduler.process, 0, probability)
    found = [drawn.route(batch) for batch in range(3000)]
    for route in shares:
        number = sum(each.level == route.level and each.output_size == route.output_size for each in found)
        assert number / 3000 == pytest.approx(route.share, abs=5 * (route.share * (1 - route.share) / 3000) ** 0.5)
        assert scheduler.process.size(route.t) == route.size
        assert scheduler.process.prediction_size(route.t, route.t - 1) == route.output_size


def test_kept_bytes_are_those_of_a_real_pass() -> None:
    """But for the attention in the middle, whose kernels keep other things on another device."""
    unet = FlexiUNet2DModel(16, block_out_channels=(32, 32), attention_resolutions=())
    weights = {weight.untyped_storage().data_ptr() for weight in unet.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        unet(torch.zeros(1, 3, 8, 8), torch.zeros(1), output_size=(16, 16))
    real = sum(storage.nbytes() for address, storage in kept.items() if address not in weights)
    assert count_kept_bytes(unet, (8, 8), (16, 16)) == pytest.approx(real, rel=0.05)


@pytest.fixture
def small_run(tmp_path):
    config = TrainConfig(
        **{"res": 16, "data": "digits", "levels": 2, "block_out_channels": [32, 32], "layers_per_block": 1},
        **{"global_batch_size": 4, "num_workers": 0, "cpu_threads": 1, "out": str(tmp_path / "x"), "max_steps": 10},
    )
    accelerator = make_accelerator(config)
    return set_up(config, accelerator), accelerator


def test_without_time_nothing_is_timed_and_gflops_tell_the_times_apart(small_run) -> None:
    setup, accelerator = small_run
    times = time_routes(setup, accelerator, seconds=0)
    assert [each.timed for each in times] == [0, 0, 0]
    per_gflop = [each.seconds / count_gflops(setup.unet, each.route.size, each.route.output_size) for each in times]
    assert per_gflop == pytest.approx([per_gflop[0]] * 3)
    lines = forecast_lines(replace(made(), routes=times), "a machine")
    assert sum("by its GFLOPs: an image takes longer than was left" in line for line in lines) == 3


def test_a_real_measurement(small_run, tmp_path) -> None:
    setup, accelerator = small_run
    found = forecast(setup, accelerator, seconds=1.0)
    assert all(1 <= each.timed <= each.images == each.at_once == 4 for each in found.routes)
    assert found.update > 0
    assert found.step > found.update
    assert found.weights == 4 * sum(weight.numel() for weight in setup.unet.parameters())
    assert all(weight.grad is None for weight in setup.unet.parameters())
    assert not (tmp_path / "x").exists()
    assert time_reading(setup.dataset, 0, seconds=0.01) > 0


def test_the_command_says_all_of_it(tmp_path) -> None:
    flags = [*TINY, "--data", "digits", "--out", tmp_path / "x", "--max_steps", "1000000"]
    done = run_script(TRAIN, *flags, "--global_batch_size", "16", "--micro_batch_size", "4", "--dry_run")
    assert done.code == 0, done.err
    for part in ("On this machine (CPU, 1 thread, 1 process)", "16 x 16 ", "measured with", "update of the weights"):
        assert part in done.out
    for part in ("  time  ", "s per step", "1000000 steps: ", "  memory", "  disk", "passes over 1797"):
        assert part in done.out
    assert "warning: each of the 1797 images would be seen 8,904 times" in done.out
    assert not (tmp_path / "x").exists()
