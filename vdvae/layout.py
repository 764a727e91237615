"""Strings of blocks, such as "8x3,8d2,4x3,4d4,1x3", as lists of what is applied one after the other.

The grammar is that of the published VDVAE (Child, arXiv:2011.10650), with repeats added for weight sharing over time
(Falck et al., arXiv:2301.08187, section 4):

    RES        one block at resolution RES
    RESxN      N blocks
    RESxNrR    N blocks, applied in this order R times: b1 b2 b1 b2 ..
    RESdK      encoder only: a block, then K x K average pooling
    RESmSRC    decoder only: a block that first adds the nearest-neighbour enlarged state of resolution SRC

Blocks of `d` and `m` are never shared. Pure Python, so that every layout can be read and tested without a network.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(r"([1-9]\d{0,4})(?:x([1-9]\d{0,3})(?:r([1-9]\d{0,3}))?|d([2-9]|[1-9]\d{1,3})|m([1-9]\d{0,4}))?")


@dataclass(frozen=True)
class BlockSpec:
    """One application of a block.

    Attributes
    ----------
    resolution : int
        The side of the state in pixels, before pooling.
    module : int
        The number of the block whose weights are used. Blocks are numbered as they first appear.
    pool : int
        K of `RESdK`; 1 without pooling.
    source : int, optional
        SRC of `RESmSRC`.
    """

    resolution: int
    module: int
    pool: int = 1
    source: int | None = None


def parse_blocks(text: str) -> list[BlockSpec]:
    """All applications that a string of blocks stands for, in order.

    Raises
    ------
    ValueError
        For a part that the grammar does not know.

    Examples
    --------
    >>> [(spec.resolution, spec.module) for spec in parse_blocks("4x2r2,1")]
    [(4, 0), (4, 1), (4, 0), (4, 1), (1, 2)]
    >>> parse_blocks("8d2")
    [BlockSpec(resolution=8, module=0, pool=2, source=None)]
    """
    specs: list[BlockSpec] = []
    first = 0
    for token in text.split(","):
        match = _TOKEN.fullmatch(token.strip())
        if match is None:
            raise ValueError(
                f"{token.strip()!r} in {text!r} is not a block: write RES, RESxN, RESxNrR, RESdK or RESmSRC."
            )
        resolution, number = int(match[1]), int(match[2] or 1)
        pool, source = int(match[4] or 1), int(match[5]) if match[5] else None
        for _ in range(int(match[3] or 1)):
            specs += [BlockSpec(resolution, first + index, pool, source) for index in range(number)]
        first += number
    return specs


def share_blocks(text: str, repeats: int | None = None) -> str:
    """The string with the blocks of every `RESxN` shared: each is applied `repeats` times, or N times by default.

    Where `repeats` does not divide N, a few more blocks than N are applied.

    Examples
    --------
    >>> share_blocks("8x6,8d2,4x1")
    '8x1r6,8d2,4x1r1'
    >>> share_blocks("8x5,4m1", repeats=2)
    '8x3r2,4m1'
    """

    def shared(match: re.Match[str]) -> str:
        number = int(match[2])
        times = min(number, repeats or number)
        return f"{match[1]}x{-(-number // times)}r{times}"

    return re.sub(r"(\d+)x(\d+)\b", shared, text)


def module_specs(specs: Sequence[BlockSpec]) -> list[BlockSpec]:
    """The first application of every block, in the order of their numbers."""
    first: dict[int, BlockSpec] = {}
    for spec in specs:
        first.setdefault(spec.module, spec)
    return list(first.values())


def encoder_layout(text: str, image_size: int) -> list[BlockSpec]:
    """The blocks of the bottom-up pass, checked: they begin at the image's size, and go down by their pooling alone.

    Raises
    ------
    ValueError
        For a layout that cannot be built; one line.
    """
    specs, resolution = parse_blocks(text), image_size
    for spec in specs:
        if spec.source is not None:
            raise ValueError(f"enc_blocks {text!r}: {spec.resolution}m{spec.source} belongs into dec_blocks.")
        if spec.resolution != resolution:
            raise ValueError(
                f"enc_blocks {text!r}: resolution {spec.resolution} is not reached, the state there has {resolution} "
                f"pixels a side: begin with the image's size, {image_size}, and go down with RESdK."
            )
        if resolution % spec.pool:
            raise ValueError(f"enc_blocks {text!r}: {resolution}d{spec.pool} does not divide {resolution} pixels.")
        resolution //= spec.pool
    return specs


def encoder_resolutions(specs: list[BlockSpec]) -> list[int]:
    """The resolutions whose activation the decoder may see, fine to coarse."""
    return list(dict.fromkeys(side for spec in specs for side in (spec.resolution, spec.resolution // spec.pool)))


def decoder_layout(text: str, image_size: int, reached: Collection[int]) -> list[BlockSpec]:
    """The blocks of the top-down pass, checked: each state has a source, and the last one has the image's size.

    Parameters
    ----------
    text : str
    image_size : int
    reached : collection of int
        The encoder's resolutions.

    Raises
    ------
    ValueError
        For a layout that cannot be built; one line.
    """
    specs = parse_blocks(text)
    seen: set[int] = set()
    for spec in specs:
        resolution, source = spec.resolution, spec.source
        if spec.pool > 1:
            raise ValueError(f"dec_blocks {text!r}: {resolution}d{spec.pool} belongs into enc_blocks.")
        if resolution not in reached:
            raise ValueError(
                f"dec_blocks {text!r}: resolution {resolution} is not reached by the encoder, which has "
                f"{', '.join(map(str, reached))}."
            )
        if source is not None and (source not in seen or source >= resolution or resolution % source):
            raise ValueError(
                f"dec_blocks {text!r}: {resolution}m{source} needs an earlier block at resolution {source}, which "
                f"must be below {resolution} and divide it."
            )
        if source is None and seen and resolution not in seen:
            raise ValueError(
                f"dec_blocks {text!r}: resolution {resolution} is not reached, no state comes up to it: begin there "
                f"with {resolution}m{max(seen)}."
            )
        seen.add(resolution)
    if specs[-1].resolution != image_size:
        raise ValueError(
            f"dec_blocks {text!r}: resolution {image_size}, the image's, is not reached by the last block."
        )
    return specs


def layout_widths(width: int, custom_widths: Mapping[int, int], resolutions: Collection[int]) -> dict[int, int]:
    """The channels of the state at every resolution.

    Parameters
    ----------
    width : int
        The channels of all resolutions that `custom_widths` does not name.
    custom_widths : mapping of int to int
        Resolution -> channels.
    resolutions : collection of int

    Raises
    ------
    ValueError
        For widths below 1, for a resolution that does not exist, or for widths that grow with the resolution: a state
        gets zero channels on its way down, and loses its last channels on its way up.

    Examples
    --------
    >>> layout_widths(16, {1: 32}, (4, 2, 1))
    {4: 16, 2: 16, 1: 32}
    """
    unknown = [resolution for resolution in custom_widths if resolution not in resolutions]
    if unknown:
        raise ValueError(f"custom_widths names resolution {unknown[0]}; there are {', '.join(map(str, resolutions))}.")
    widths = {resolution: custom_widths.get(resolution, width) for resolution in sorted(resolutions, reverse=True)}
    if min(widths.values()) < 1:
        raise ValueError(f"Widths must be at least 1, got {widths}.")
    ordered = list(widths.values())
    if ordered != sorted(ordered):
        raise ValueError(f"Widths must not grow with the resolution, got {widths} (resolution: channels).")
    return widths
