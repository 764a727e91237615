"""Classes: from the labels that data carry to numbers without gaps, with a name for each.

N images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from ..commands.errors import UsageError

Label = int | str
"""What data say about an image: a number or a name."""

MAX_CLASSES = 1_000_000
SHOWN = 5


@dataclass(frozen=True)
class Classes:
    """The classes that have images, numbered from 0 without gaps.

    Parameters
    ----------
    names : list of str
        One per class: the name where the data have names, else their own number as text.
    numbers : dict
        What the data say -> the number of the class.
    notes : list of str
        What people should know: which classes that were asked for have no image.
    """

    names: list[str]
    numbers: dict[Label, int]
    notes: list[str] = field(default_factory=list)


def number_classes(
    labels: Iterable[Label], where: str, names: Sequence[str] | None = None, asked: int | None = None
) -> Classes:
    """Number the classes that occur: integers in their order, then names in sorted order.

    Parameters
    ----------
    labels : iterable of int or str
        The labels that occur, each at least once; integers are at least 0.
    where : str
        The data set, for messages.
    names : sequence of str, optional
        The names of the classes 0, 1, ..
    asked : int, optional
        The number of classes that there should be.

    Raises
    ------
    UsageError
        For a label without a name, and for more than `MAX_CLASSES` classes, whose embeddings would be absurd.

    Examples
    --------
    >>> classes = number_classes([0, 5, 6, 5], "x.npz")
    >>> classes.names, classes.numbers[5]
    (['0', '5', '6'], 1)
    >>> classes.notes
    ['x.npz: classes 1-4 have no image; 7 classes were asked for. The 3 others are numbered 0-2.']
    """
    present = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
    highest = max((label for label in present if isinstance(label, int)), default=-1)
    if names is not None and highest >= len(names):
        raise UsageError(f"{where} has the label {highest}, but names for {len(names)} classes only: correct it.")
    total = max(asked or 0, len(names or ()), highest + 1, len(present))
    if total > MAX_CLASSES:
        raise UsageError(
            f"{where} asks for {total:,} classes, and at most {MAX_CLASSES:,} are allowed: number the classes from 0."
        )
    found = [names[label] if names is not None and isinstance(label, int) else str(label) for label in present]
    numbers = {label: number for number, label in enumerate(present)}
    return Classes(found, numbers, _gaps(numbers, total, where, names))


def number_labels(
    labels: np.ndarray, where: str, names: Sequence[str] | None = None, asked: int | None = None
) -> tuple[np.ndarray, Classes]:
    """The number of each image's class, (N,) int64, and the classes; see `number_classes`."""
    present, numbered = np.unique(labels, return_inverse=True)
    return numbered.astype(np.int64), number_classes(present.tolist(), where, names, asked)


def _gaps(numbers: dict[Label, int], total: int, where: str, names: Sequence[str] | None) -> list[str]:
    """A note on the classes that have no image."""
    if len(numbers) == total:
        return []
    others = f"The {len(numbers)} others are numbered 0-{len(numbers) - 1}."
    if any(isinstance(label, str) for label in numbers):
        return [f"{where}: {len(numbers)} classes have images; {total} classes were asked for."]
    missing = [label for label in range(total) if label not in numbers]
    shown = ranges(missing) if names is None else _some([names[label] for label in missing])
    words = f"class {shown} has" if len(missing) == 1 else f"classes {shown} have"
    return [f"{where}: {words} no image; {total} classes were asked for. {others}"]


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in words.

    Examples
    --------
    >>> ranges([1, 2, 3, 7])
    '1-3, 7'
    """
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    return _some([f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs])


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:SHOWN]) + (", .." if len(words) > SHOWN else "")
