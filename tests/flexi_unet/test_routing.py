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


def test_sizes_between_stages_written_out() -> None:
    sizes = {(pair): find_stages((pair[0],) * 2, (pair[1],) * 2, SIZES) for pair in
             [(31, 32), (32, 33), (17, 31), (16, 17), (15, 16), (8, 9), (7, 8), (1, 2)]}  # fmt: skip
    assert sizes == {(31, 32): (1, 1), (32, 33): (0, 0), (17, 31): (1, 1), (16, 17): (2, 1), (15, 16): (2, 2),
                     (8, 9): (3, 2), (7, 8): (3, 3), (1, 2): (3, 3)}  # fmt: skip


@pytest.mark.parametrize(
    ("input_size", "output_size", "message"),
    [
        ((32, 32), (16, 16), "cannot be smaller than the input: got 32 x 32 -> 16 x 16"),
        ((31, 31), (31, 30), "cannot be smaller than the input: got 31 x 31 -> 31 x 30"),
        ((65, 65), (65, 65), "input is 65 x 65 pixels; this network works at 64 x 64 and below"),
        ((8, 8), (64, 72), "output is 64 x 72 pixels; this network works at"),
        ((0, 0), (4, 4), "input is 0 x 0"),
        ((20, 8), (20, 8), "another aspect ratio than the network's 64 x 64: with this height it is 20 pixels wide"),
        ((8, 8), (30, 28), "output is 30 x 28 pixels, which is another aspect ratio"),
    ],
)
def test_impossible_routes_are_explained(input_size, output_size, message) -> None:
    with pytest.raises(ValueError, match=message):
        plan_route(input_size, output_size, SIZES, LAYERS)


@pytest.mark.parametrize("size", [(49, 33), (49, 32), (47, 31), (47, 32), (95, 63), (95, 64), (1, 1), (2, 1)])
def test_an_aspect_ratio_up_to_whole_pixels(size) -> None:
    sizes = stage_sizes((96, 64), 3)
    expected = next(k for k in (2, 1, 0) if k == 0 or (sizes[k][0] >= size[0] and sizes[k][1] >= size[1]))
    assert find_stages(size, size, sizes) == (expected, expected)
    with pytest.raises(ValueError, match="aspect ratio"):
        find_stages((40, 60), (40, 60), sizes)


def test_stage_sizes() -> None:
    assert stage_sizes((48, 32), 3) == [(48, 32), (24, 16), (12, 8)]
    with pytest.raises(ValueError, match="divisible by 8: got 60 x 64, the nearest that works is 64 x 64"):
        stage_sizes((60, 64), 4)
