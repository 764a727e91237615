"""Routes through Flexi-UNet: (input size, output size) -> which stages run, and which skips are zero.

Pure Python, so that every pair of sizes can be read and tested without a network. Stage k works at
(height >> k, width >> k); 0 is the finest. The encoder runs from the input's stage down to the coarsest one, the
decoder climbs from there to the output's stage. The rules are those of arXiv:2603.08709, figure 4, and of
its published networks.

A size need not be that of a stage (ours, for images that shrink by any step). It belongs to the coarsest stage that is
at least as large in both directions: between two stages to the finer one, below all stages to the coarsest. The input
is enlarged to its stage, and the prediction shrunk from its own.
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
    input_size : (height, width)
        The size of the entry stage, to which an input of another size is resized.
    output_size : (height, width)
        The size of the exit stage, from which the prediction is resized where another size was asked for.
    encoder : tuple of int
        Encoder stages in the order in which they run: entry stage, .., coarsest.
    decoder : tuple of DecoderStep
        The decoder's part, in the order in which they run: coarsest, .., exit stage.
    """

    input_size: Size
    output_size: Size
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


def find_stages(input_size: Size, output_size: Size, sizes: Sequence[Size]) -> tuple[int, int]:
    """The stages at which an input enters and its prediction leaves.

    Parameters
    ----------
    input_size, output_size : (height, width)
        Up to the full resolution, of any aspect ratio; the output is no smaller than the input.
    sizes : sequence of (height, width)
        Sizes of the stages, fine to coarse, as from `stage_sizes`.

    Raises
    ------
    ValueError
        For a size above the full resolution, or an output smaller than the input.

    Examples
    --------
    >>> sizes = stage_sizes(64, 4)
    >>> find_stages((16, 16), (16, 16), sizes)
    (2, 2)
    >>> find_stages((15, 15), (17, 17), sizes)  # enlarged to 16 pixels, shrunk from 32
    (2, 1)
    >>> find_stages((2, 2), (3, 3), sizes)  # both at 8 pixels, the coarsest stage
    (3, 3)
    """
    entry, exit_ = _stage_of("input", input_size, sizes), _stage_of("output", output_size, sizes)
    if output_size[0] < input_size[0] or output_size[1] < input_size[1]:
        raise ValueError(
            f"The output cannot be smaller than the input: got {input_size[0]} x {input_size[1]} -> "
            f"{output_size[0]} x {output_size[1]}."
        )
    # Towards the full resolution the whole network runs, on the upsampled input.
    return (entry if exit_ > 0 else 0), exit_


def _stage_of(name: str, size: Size, sizes: Sequence[Size]) -> int:
    """The coarsest stage that is at least as large as `size`."""
    fitting = [stage for stage, (height, width) in enumerate(sizes) if height >= size[0] and width >= size[1]]
    if not fitting or min(size) < 1:
        raise ValueError(
            f"The {name} is {size[0]} x {size[1]} pixels; this network works up to {sizes[0][0]} x {sizes[0][1]}."
        )
    return fitting[-1]


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
        As in `find_stages`.
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
    entry, exit_ = find_stages(input_size, output_size, sizes)
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
    return Route(sizes[entry], sizes[exit_], tuple(range(entry, len(sizes))), tuple(decoder))
