"""The route of every pair of sizes."""

import pytest

from flexi_unet.routing import DecoderStep, find_stages, plan_route, stage_sizes

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
    start = 0 if to_full else entry
    assert (found.input_size, found.output_size) == (SIZES[start], SIZES[exit_])
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


def test_layers_per_stage() -> None:
    found = route(1, 1, layers=(1, 2, 3, 4))
    assert [step.num_blocks for step in found.decoder] == [5, 4, 2]


@pytest.mark.parametrize("sizes", [stage_sizes(64, 4), stage_sizes(36, 3), stage_sizes((96, 64), 6)])
def test_every_pair_of_whole_sizes(sizes) -> None:
    (height, width), last = sizes[0], len(sizes) - 1
    shrunk = [(side, max(1, round(side * width / height))) for side in range(1, height + 1)]
    for number, output_size in enumerate(shrunk):
        exit_ = next((k for k in range(last, -1, -1) if min(a - b for a, b in zip(sizes[k], output_size)) >= 0), last)
        for input_size in shrunk[: number + 1]:
            found = plan_route(input_size, output_size, sizes, [2] * len(sizes))
            assert found.output_size == sizes[exit_]
            finer = [size for size in sizes if size[0] >= input_size[0] and size[1] >= input_size[1]]
            assert found.input_size == (sizes[0] if exit_ == 0 else finer[-1])
            assert found == plan_route(found.input_size, found.output_size, sizes, [2] * len(sizes))


@pytest.mark.parametrize(
    ("input_size", "output_size", "entry", "exit_"),
    [
        ((63, 63), (63, 63), 0, 0),
        ((33, 33), (40, 40), 0, 0),
        ((32, 32), (33, 33), 0, 0),  # out at the finest stage: in there, too
        ((17, 17), (31, 31), 1, 1),
        ((20, 31), (32, 32), 1, 1),
        ((15, 15), (17, 17), 2, 1),
        ((8, 8), (9, 9), 3, 2),
        ((2, 2), (3, 3), 3, 3),  # smaller than the coarsest stage
        ((16, 16), (32, 16), 2, 1),  # the sides belong to two stages: the finer one
        ((32, 16), (32, 32), 1, 1),
    ],
)
def test_sizes_between_stages(input_size, output_size, entry: int, exit_: int) -> None:
    assert find_stages(input_size, output_size, SIZES) == (entry, exit_)
    found = plan_route(input_size, output_size, SIZES, LAYERS)
    assert (found.input_size, found.output_size) == (SIZES[entry], SIZES[exit_])
    assert found == plan_route(SIZES[entry], SIZES[exit_], SIZES, LAYERS)


@pytest.mark.parametrize(
    ("input_size", "output_size", "message"),
    [
        ((32, 32), (16, 16), "cannot be smaller than the input: got 32 x 32 -> 16 x 16"),
        ((31, 31), (31, 30), "cannot be smaller than the input: got 31 x 31 -> 31 x 30"),
        ((72, 64), (72, 64), "input is 72 x 64 pixels; this network works up to 64 x 64"),
        ((8, 8), (64, 65), "output is 64 x 65 pixels; this network works up to"),
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
