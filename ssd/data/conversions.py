"""What reading changes in a picture as it is stored, counted by all processes that read."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag

import numpy as np
import torch
from torch.utils.data import get_worker_info


class Conversion(IntFlag):
    """What `ssd.data.decoding.decode` changed in a picture that is not plain, or lost of it; and if it was enlarged."""

    TURNED = 1
    COMPOSITED = 2
    SCALED = 4
    GREYED = 8
    ENLARGED = 16


PHRASES = {
    Conversion.TURNED: "turned by {their} EXIF tag",
    Conversion.COMPOSITED: "composited over {background}",
    Conversion.SCALED: "scaled to 8 bits from 16 or 32 bits or from floating point",
    Conversion.GREYED: "converted from colour to grey",
    Conversion.ENLARGED: "smaller than the size asked for, and enlarged",
}
READ = 128
"""The flag of a picture that was decoded at all."""

PROCESSES = 1024
"""Worker processes of a stream that count without sharing a place."""


class PictureFlags:
    """The conversions of each picture of a data set with a length, seen by all of its processes.

    They are one byte per picture in shared memory, so that a picture counts once however often, and in whichever
    worker process of a `DataLoader`, it is read.

    Parameters
    ----------
    count : int
        Number of pictures.

    Examples
    --------
    >>> flags = PictureFlags(3)
    >>> flags.note(1, Conversion.TURNED)
    >>> flags.counts()
    {'read': 1, 'turned': 1, 'composited': 0, 'scaled': 0, 'greyed': 0, 'enlarged': 0}
    """

    def __init__(self, count: int) -> None:
        self._flags = torch.zeros(count, dtype=torch.uint8).share_memory_()

    def __getitem__(self, index: int) -> Conversion:
        return Conversion(int(self._flags[index]) & ~READ)

    def note(self, index: int, conversions: Conversion) -> None:
        """Write down what was done to a picture that was read."""
        self._flags[index] = READ | int(conversions)

    def counts(self) -> dict[str, int]:
        """Numbers of pictures: "read", and of these "turned", "composited", "scaled", "greyed" and "enlarged"."""
        flags = self._flags.numpy()
        return {"read": int(np.count_nonzero(flags)), **count_flags(flags)}


class StreamTally:
    """The same for a stream, which does not number its pictures: one that is read again counts again."""

    def __init__(self) -> None:
        self._numbers = torch.zeros(PROCESSES, 1 + len(Conversion), dtype=torch.int64).share_memory_()

    def note(self, conversions: Conversion) -> None:
        """Count a picture that this process has read."""
        worker = get_worker_info()
        row = 0 if worker is None else 1 + worker.id % (PROCESSES - 1)  # a row of its own, since additions may collide
        self._numbers[row] += torch.tensor([1, *(flag in conversions for flag in Conversion)])

    def counts(self) -> dict[str, int]:
        """See `PictureFlags.counts`."""
        names = ("read", *map(name_of, Conversion))
        return dict(zip(names, self._numbers.sum(dim=0).tolist()))


def count_flags(flags: np.ndarray) -> dict[str, int]:
    """How many of these bytes hold each conversion, by its name in lower case."""
    return {name_of(flag): int(np.count_nonzero(flags & flag.value)) for flag in Conversion}


def conversion_notes(counts: Mapping[str, int], background: str) -> list[str]:
    """A sentence for every kind of conversion that happened.

    Examples
    --------
    >>> conversion_notes({"read": 5000, "turned": 312, "composited": 0, "scaled": 1}, "white")[0]
    '312 of 5000 pictures read were turned by their EXIF tag.'
    """
    return [
        f"{number} of {counts['read']} pictures read {'was' if number == 1 else 'were'} "
        f"{phrase.format(their='its' if number == 1 else 'their', background=background)}."
        for flag, phrase in PHRASES.items()
        if (number := counts.get(name_of(flag), 0))
    ]


def name_of(flag: Conversion) -> str:
    """The key of a conversion in counts, such as "turned"."""
    return str(flag.name).lower()
