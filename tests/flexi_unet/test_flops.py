"""The cost of Flexi-UNet: every figure of the table, and the command that prints it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from flexi_unet import FlexiUNet2DModel, ResizedUNet2DModel
from flexi_unet.flops import count_gflops
from ssd.training.networks import resized_unet_of

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "flops.py"


@pytest.fixture(scope="module")
def flops():
    """The benchmark script as a module; one for all tests, so that every route is counted once."""
    spec = importlib.util.spec_from_file_location("benchmark_flops", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


AVERAGES = [
    (64, 1, 56.7),
    (64, 2, 51.2),
    (64, 4, 39.0),
    (128, 1, 117.3),
    (128, 3, 87.9),
    (128, 5, 67.2),
    (256, 1, 435.5),
    (256, 3, 318.1),
    (256, 4, 273.7),
    (256, 6, 210.4),
]


def test_table_holds_every_expected_setting(flops):
    assert flops.FlopsConfig().settings() == [(res, levels) for res, levels, _ in AVERAGES]


@pytest.mark.parametrize(("res", "levels", "expected"), AVERAGES)
def test_average_gflops(flops, res, levels, expected):
    assert flops.measure(res, levels).average == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(
    ("res", "full_size", "plain_unet"), [(64, 56.7, 60.6), (128, 117.3, 132.9), (256, 435.5, 497.8)]
)
def test_full_size_step_and_plain_unet(flops, res, full_size, plain_unet):
    row = flops.measure(res, 1)
    assert row.full_size == pytest.approx(full_size, rel=5e-3)
    assert row.average == pytest.approx(row.full_size, rel=1e-12)  # one level: every step is at full size
    assert row.plain_unet == pytest.approx(plain_unet, rel=5e-3)


@pytest.mark.parametrize(("levels", "printed"), [(1, 497.0), (4, 273.0), (6, 209.7)])
def test_figures_of_the_paper_at_256(flops, levels, printed):
    row = flops.measure(256, levels)
    ours = row.plain_unet if levels == 1 else row.average  # the paper's DDPM is a plain U-Net
    assert row.paper == printed
    assert ours == pytest.approx(printed, rel=5e-3)


def test_paper_column_is_for_its_own_schedule_only(flops):
    row = flops.measure(256, 4, "equal")
    assert row.paper is None
    assert row.average < flops.measure(256, 4).average  # convex_decay(0.5) keeps the fine levels longer


def test_command_prints_one_setting(flops, capsys):
    flops.main(["--res", "64", "--levels", "2", "--schedule", "equal", "--gamma", "1"])
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["res", "levels", "ours", "full", "size", "plain", "U-Net", "paper"]
    assert row.split()[:2] == ["64", "2"]
    assert row.split()[3:] == ["56.7", "60.6", "-"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--res", "100", "--levels", "2"], "--res must be one of 32, 64, 128, 256, 512, 1024, got 100"),
        (["--res", "512"], "give --levels"),
        (["--levels", "3"], "give --res"),
        (["--res", "64", "--levels", "9"], "largest number of levels is 4"),
        (["--gamma", "0"], "--gamma must be positive"),
        (["--schedule", "steep"], "convex_decay"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(flops, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_info:
        flops.main(arguments)
    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert message in error
    assert len(error.splitlines()) == 1


def test_arguments_by_position_count_too() -> None:
    by_position = FlexiUNet2DModel(16, block_out_channels=(32, 32))
    by_name = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 32))
    assert count_gflops(by_position, (8, 8), (8, 8)) == count_gflops(by_name, (8, 8), (8, 8))


def plain_settings(**changes) -> dict:
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return {"block_out_channels": (32, 32), **blocks} | changes


def test_the_full_unet_costs_the_same_at_every_size() -> None:
    unet = ResizedUNet2DModel(16, **plain_settings(num_class_embeds=3, id2label={0: "a", 1: "b"}))
    full = count_gflops(unet, (16, 16), (16, 16))
    assert full > 0
    assert {count_gflops(unet, (size, size), (size + 1, size + 1)) for size in range(1, 16)} == {full}
    one_stage = ResizedUNet2DModel(16, **plain_settings(in_channels=1, out_channels=1))
    assert 0 < count_gflops(one_stage, (16, 16), (16, 16)) < full


def test_the_full_unet_is_the_plain_one_of_the_paper() -> None:
    with torch.device("meta"):
        full, flexi = resized_unet_of(64, (128, 256, 384, 512)), FlexiUNet2DModel(64, decoder_exit="full")
    cost = count_gflops(full, (64, 64), (64, 64))
    assert cost == pytest.approx(60.05, rel=0.01)  # arXiv:2603.08709, table 2
    assert cost == pytest.approx(count_gflops(flexi, (64, 64), (64, 64)), rel=1e-6)
    assert count_gflops(flexi, (31, 31), (32, 32)) < 0.7 * cost


def test_a_size_between_two_stages_costs_what_the_finer_one_does() -> None:
    unet = FlexiUNet2DModel(32, block_out_channels=(32, 32, 32))
    for size in range(1, 32):
        stage = next(side for side in (8, 16, 32) if side >= size)
        assert count_gflops(unet, (size, size), (size, size)) == count_gflops(unet, (stage,) * 2, (stage,) * 2)
    with pytest.raises(ValueError, match="33 x 33 pixels; this network works up to 32 x 32"):
        count_gflops(unet, (33, 33), (33, 33))


def test_the_network_without_memory_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    unet, built = FlexiUNet2DModel(24, block_out_channels=(32, 32, 32)), []
    plain = FlexiUNet2DModel.__init__

    def counted(*args, **named) -> None:
        built.append(1)
        plain(*args, **named)

    monkeypatch.setattr(FlexiUNet2DModel, "__init__", counted)
    for size in range(1, 24):
        count_gflops(unet, (size, size), (size + 1, size + 1))
    assert len(built) == 1


def test_every_setting_counts() -> None:
    early, full = (FlexiUNet2DModel(16, block_out_channels=(32, 32), decoder_exit=name) for name in ("early", "full"))
    assert count_gflops(early, (16, 16), (16, 16)) < count_gflops(full, (16, 16), (16, 16))
