"""Image sizes and channels as a user gives them, as files hold them and as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from ..commands.errors import UsageError
from ..operators.sizes import Size

CHANNELS = {3: "colour (RGB)", 1: "grey"}
"""The numbers of channels that images can have, in words."""


def parse_size(size: int | Sequence[int]) -> Size:
    """(height, width) of what a user gives: one number is the side of a square.

    Raises
    ------
    UsageError
        For anything but one or two positive integers.

    Examples
    --------
    >>> parse_size(64), parse_size([96, 64])
    ((64, 64), (96, 64))
    """
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        raise UsageError(f"The size of the images must be one number, or two for [height, width], got {size}.")
    if min(sides) < 1:
        raise UsageError(f"The size of the images must be at least 1, got {size}.")
    return sides[0], sides[1]


def written_size(size: Size) -> int | list[int]:
    """A size as files and flags have it: the side of a square, else [height, width].

    Examples
    --------
    >>> written_size((64, 64)), written_size((96, 64))
    (64, [96, 64])
    """
    return size[0] if size[0] == size[1] else list(size)


def size_text(size: Size) -> str:
    """A size in words.

    Examples
    --------
    >>> size_text((64, 64)), size_text((96, 64))
    ('64 x 64', '96 x 64 (height x width)')
    """
    return f"{size[0]} x {size[1]}" + ("" if size[0] == size[1] else " (height x width)")


def check_channels(channels: int) -> None:
    """Raise a `UsageError` unless images can have this number of channels."""
    if channels not in CHANNELS:
        allowed = " or ".join(f"{number} for {name}" for number, name in CHANNELS.items())
        raise UsageError(f"The number of channels must be {allowed}, got {channels}.")
