"""The route of every pair of sizes."""

import pytest

from flexi_unet.routing import DecoderStep, plan_route, stage_sizes

SIZES = stage_sizes(64, 4)
LAYERS = (2, 2, 2, 2)
PAIRS = [(a, b) for a in range(4) for b in range(a + 1)]


def route(entry: int, exit_: int, decoder_exit: str = "early", layers=LAYERS):
    return plan_route(SIZES[entry], SIZES[exit_], SIZES, layers, decoder_exit)


@pytest.mark.parametrize("decoder_exit", ["early", "full"])
@pytest.mark.parametrize(("entry", "exit_"), PAIRS)
def test_every_pair_of_sizes(entry: int, exit_: int, decoder_exit: str) -> None:
    found = route(entry, exit_, decoder_exit)
    to_full = exit_ == 0 and entry > 0
    assert found.upsample_to == (SIZES[0] if to_full else None)
    assert found.downsample_to is None
    start = 0 if to_full else entry
    assert found.encoder == tuple(range(start, 4))
    assert found.entry_stage == start
    assert [step.stage for step in found.decoder] == list(range(3, exit_ - 1, -1))
    for step in found.decoder:
        leaves = step.stage == exit_
        assert step.upsample == (not leaves)
        assert step.num_blocks == (2 if leaves and decoder_exit == "early" else 3)
        if step.stage < start:
            assert step.num_skips == 0
        elif step.stage == start and decoder_exit == "early":
            assert step.num_skips == 2  # the last block, on the way up, gets zeros as published
        else:
            assert step.num_skips == step.num_blocks


def test_one_route_written_out() -> None:
    assert route(2, 1).decoder == (
        DecoderStep(stage=3, num_blocks=3, num_skips=3, upsample=True),
        DecoderStep(stage=2, num_blocks=3, num_skips=2, upsample=True),
        DecoderStep(stage=1, num_blocks=2, num_skips=0, upsample=False),
    )


@pytest.mark.parametrize(
    ("input_size", "output_size", "upsample_to", "downsample_to", "entry", "exit_"),
    [
        ((63, 63), (63, 63), (64, 64), (63, 63), 0, 0),
        ((33, 33), (40, 40), (64, 64), (40, 40), 0, 0),
        ((32, 32), (33, 33), (64, 64), (33, 33), 0, 0),  # out at the finest stage: in there, too
        ((20, 31), (32, 32), (32, 32), None, 1, 1),
        ((15, 15), (17, 17), (16, 16), (17, 17), 2, 1),
        ((2, 2), (3, 3), (8, 8), (3, 3), 3, 3),  # smaller than the coarsest stage
    ],
)
def test_sizes_between_stages(input_size, output_size, upsample_to, downsample_to, entry: int, exit_: int) -> None:
    found = plan_route(input_size, output_size, SIZES, LAYERS)
    assert (found.upsample_to, found.downsample_to) == (upsample_to, downsample_to)
    between_stages = plan_route(SIZES[entry], SIZES[exit_], SIZES, LAYERS)
    assert (found.encoder, found.decoder) == (between_stages.encoder, between_stages.decoder)


def test_layers_per_stage() -> None:
    found = route(1, 1, layers=(1, 2, 3, 4))
    assert [step.num_blocks for step in found.decoder] == [5, 4, 2]


@pytest.mark.parametrize(
    ("input_size", "output_size", "message"),
    [
        ((32, 32), (16, 16), "cannot be smaller than the input: got 32 x 32 -> 16 x 16"),
        ((48, 48), (47, 48), "cannot be smaller than the input: got 48 x 48 -> 47 x 48"),
        ((72, 64), (72, 64), "input is 72 x 64 pixels; this network works up to 64 x 64"),
        ((8, 8), (128, 128), "output is 128 x 128"),
        ((0, 8), (8, 8), "input is 0 x 8"),
    ],
)
def test_impossible_routes_are_explained(input_size, output_size, message) -> None:
    with pytest.raises(ValueError, match=message):
        plan_route(input_size, output_size, SIZES, LAYERS)


def test_stage_sizes() -> None:
    assert stage_sizes((48, 32), 3) == [(48, 32), (24, 16), (12, 8)]
    with pytest.raises(ValueError, match="divisible by 8: got 60 x 64, the nearest that works is 64 x 64"):
        stage_sizes((60, 64), 4)
