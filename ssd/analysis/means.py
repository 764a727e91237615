"""Means over images of numbers that not every image has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def means(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of every number over the rows that have it; None where none has.

    Examples
    --------
    >>> means([{"a": 1.0, "b": None, "c": None}, {"a": 3.0, "b": 5.0, "c": None}])
    {'a': 2.0, 'b': 5.0, 'c': None}
    """
    columns = {name: [value for row in rows if (value := row[name]) is not None] for name in rows[0]}
    return {name: sum(column) / len(column) if column else None for name, column in columns.items()}
