"""Routes through Flexi-UNet: (input size, output size) -> which stages run, and which skips are zero.

Pure Python, so that every pair of sizes can be read and tested without a network. Stage k works at
(height >> k, width >> k); 0 is the finest. The encoder runs from the input's stage down to the coarsest one, the
decoder climbs from there to the output's stage. The rules are those of arXiv:2603.08709, figure 4, and of
its published networks.

A size need not be that of a stage (ours, for images that shrink by any step): it belongs to the coarsest stage that is
as large, or to the coarsest of all, and is resized on the way in and on the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, int]
"""(height, width) in pixels."""

DECODER_EXITS = ("early", "full")
MAX_SIDE = 4096
"""The largest side in pixels; a larger one is taken for a mistake."""


@dataclass(frozen=True)
class DecoderStep:
    """What one stage of the decoder does on a route.

    Attributes
    ----------
    stage : int
        Index of the stage, 0 the finest.
    num_blocks : int
        How many of its residual blocks run, from its first.
    num_skips : int
        How many of these blocks receive an encoder feature; the later ones receive zeros.
    upsample : bool
        Whether its upsampler runs, on the way to the next finer stage.
    """

    stage: int
    num_blocks: int
    num_skips: int
    upsample: bool


@dataclass(frozen=True)
class Route:
    """The part of the network that one (input size, output size) uses.

    Attributes
    ----------
    upsample_to : (height, width) or None
        The input is first upsampled (bilinear) to this size.
    downsample_to : (height, width) or None
        The output is downsampled (bilinear, antialiased) to this size at last.
    encoder : tuple of int
        Encoder stages in the order in which they run: entry stage, .., coarsest.
    decoder : tuple of DecoderStep
        The decoder's part, in the order in which they run: coarsest, .., exit stage.
    """

    upsample_to: Size | None
    downsample_to: Size | None
    encoder: tuple[int, ...]
    decoder: tuple[DecoderStep, ...]

    @property
    def entry_stage(self) -> int:
        """The stage at which the input enters."""
        return self.encoder[0]


def stage_sizes(sample_size: int | Sequence[int], num_stages: int) -> list[Size]:
    """Sizes of the stages, fine to coarse.

    Raises
    ------
    ValueError
        For a side above 4096 pixels, or when the network cannot halve `sample_size` often enough; the message then
        names sizes nearby that work.
    """
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else tuple(sample_size)
    if max(height, width) > MAX_SIDE:
        raise ValueError(f"Images may have sides of at most {MAX_SIDE} pixels, got {height} x {width}.")
    factor = 2 ** (num_stages - 1)
    if height < 1 or width < 1 or height % factor or width % factor:
        nearest = " x ".join(str(max(factor, factor * round(side / factor))) for side in (height, width))
        raise ValueError(
            f"A network of {num_stages} stages halves the image {num_stages - 1} times, so both sides must be "
            f"divisible by {factor}: got {height} x {width}, the nearest that works is {nearest}."
        )
    return [(height >> stage, width >> stage) for stage in range(num_stages)]


def plan_route(
    input_size: Size,
    output_size: Size,
    sizes: Sequence[Size],
    layers_per_block: Sequence[int],
    decoder_exit: str = "early",
) -> Route:
    """The route from `input_size` to `output_size`.

    Parameters
    ----------
    input_size, output_size : (height, width)
        Up to the full resolution; the output is no smaller than the input.
    sizes : sequence of (height, width)
        Sizes of the stages, fine to coarse, as from `stage_sizes`.
    layers_per_block : sequence of int
        Residual blocks per encoder stage, fine to coarse. A decoder stage has one more, whose skip is the
        feature that entered the encoder stage.
    decoder_exit : {"early", "full"}
        early (published): the exit stage leaves its last block out. full: it runs it.

    Raises
    ------
    ValueError
        For a size above the full resolution, or an output smaller than the input.
    """
    sizes = [(height, width) for height, width in sizes]
    entry, exit_ = _stage_of("input", input_size, sizes), _stage_of("output", output_size, sizes)
    if output_size[0] < input_size[0] or output_size[1] < input_size[1]:
        raise ValueError(
            f"The output cannot be smaller than the input: got {input_size[0]} x {input_size[1]} -> "
            f"{output_size[0]} x {output_size[1]}."
        )
    if exit_ == 0:
        entry = 0  # towards the full resolution the whole network runs, on the upsampled input

    decoder = []
    for stage in range(len(sizes) - 1, exit_ - 1, -1):
        num_layers = layers_per_block[stage]
        leaves_here = stage == exit_
        num_blocks = num_layers if leaves_here and decoder_exit == "early" else num_layers + 1
        if stage > entry:  # a stage that the encoder entered from above: every block has its skip
            num_skips = num_blocks
        elif stage < entry:  # the encoder never was here
            num_skips = 0
        elif decoder_exit == "full":
            num_skips = num_blocks
        else:  # as published, the last block of the entry stage gets zeros although the entry feature fits
            num_skips = num_layers
        decoder.append(DecoderStep(stage, num_blocks, num_skips, upsample=not leaves_here))
    return Route(
        None if tuple(input_size) == sizes[entry] else sizes[entry],
        None if tuple(output_size) == sizes[exit_] else (output_size[0], output_size[1]),
        tuple(range(entry, len(sizes))),
        tuple(decoder),
    )


def _stage_of(name: str, size: Size, sizes: Sequence[Size]) -> int:
    """The coarsest stage that is as large as `size`."""
    fitting = [stage for stage, (height, width) in enumerate(sizes) if height >= size[0] and width >= size[1]]
    if not fitting or min(size) < 1:
        raise ValueError(
            f"The {name} is {size[0]} x {size[1]} pixels; this network works up to {sizes[0][0]} x {sizes[0][1]}."
        )
    return fitting[-1]
