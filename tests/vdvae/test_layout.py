"""Strings of blocks: what they mean, and one clear line for those that cannot be built."""

from __future__ import annotations

import pytest

from vdvae.layout import (
    BlockSpec,
    decoder_layout,
    encoder_layout,
    encoder_resolutions,
    layout_widths,
    module_specs,
    parse_blocks,
    share_blocks,
)


def test_the_published_grammar() -> None:
    assert parse_blocks("4m1, 4x2,4") == [
        BlockSpec(4, 0, source=1),
        BlockSpec(4, 1),
        BlockSpec(4, 2),
        BlockSpec(4, 3),
    ]
    assert parse_blocks("16d4") == [BlockSpec(16, 0, pool=4)]


def test_a_group_is_repeated_in_its_order() -> None:
    specs = parse_blocks("8x2r3,8d2,4x1")
    assert [spec.module for spec in specs] == [0, 1, 0, 1, 0, 1, 2, 3]
    assert [spec.module for spec in module_specs(specs)] == [0, 1, 2, 3]


@pytest.mark.parametrize("repeats", [None, 2, 3, 7])
def test_sharing_applies_at_least_as_many_blocks(repeats: int | None) -> None:
    for number in range(1, 10):
        specs = parse_blocks(share_blocks(f"8x{number}", repeats))
        times = len(specs) // len(module_specs(specs))
        assert times == min(number, repeats or number)
        assert number <= len(specs) < number + times


def test_resolutions_and_widths() -> None:
    specs = encoder_layout("12x2,12d3,4d4", 12)
    assert encoder_resolutions(specs) == [12, 4, 1]
    assert layout_widths(8, {4: 16, 1: 16}, [12, 4, 1]) == {12: 8, 4: 16, 1: 16}


@pytest.mark.parametrize("text", ["", "8y2", "8x0", "0x3", "8x2r0", "8d1", "8x2d2", "8m", "x3", "8x3r", "-8x2", "8,,4"])
def test_parts_that_the_grammar_does_not_know(text: str) -> None:
    with pytest.raises(ValueError, match="is not a block: write RES, RESxN"):
        parse_blocks(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8x2,8d2,4x1", "resolution 8 is not reached, the state there has 16 pixels"),
        ("16x2,8x1", "resolution 8 is not reached"),
        ("16d2,8m4", "8m4 belongs into dec_blocks"),
        ("16d3,5x1", "does not divide 16"),
    ],
)
def test_encoders_that_cannot_be_built(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        encoder_layout(text, 16)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4m1,16m4", "4m1 needs an earlier block at resolution 1"),
        ("1x1,4m4,16m4", "4m4 needs an earlier block at resolution 4, which must be below"),
        ("1x1,4x1,16m4", "resolution 4 is not reached, no state comes up to it: begin there with 4m1"),
        ("2x1,16m2", "resolution 2 is not reached by the encoder, which has 16, 4, 1"),
        ("1x1,4m1", "resolution 16, the image's, is not reached"),
        ("1x1,16m1,16d2", "16d2 belongs into enc_blocks"),
    ],
)
def test_decoders_that_cannot_be_built(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        decoder_layout(text, 16, [16, 4, 1])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ({8: 32}, "must not grow with the resolution"),
        ({4: 8}, "must not grow with the resolution"),
        ({2: 32}, "names resolution 2; there are 8, 4"),
        ({8: 0}, "at least 1"),
    ],
)
def test_widths_that_do_not_fit(custom: dict[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout_widths(16, custom, [8, 4])
