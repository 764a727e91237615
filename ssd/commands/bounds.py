"""What numbers among the settings of a command may be: fields of dataclasses that know their bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Bound:
    """What a number must be: a test, and its words for the message."""

    holds: Callable[[float], bool]
    text: str


def at_least(low: int, default: Any) -> Any:
    """A field whose value is at least `low`."""
    return field(default=default, metadata={"bound": Bound(lambda value: value >= low, f"at least {low}")})


def above_zero(default: float | None) -> Any:
    """A field with a positive value."""
    return field(default=default, metadata={"bound": Bound(lambda value: value > 0, "positive")})


def fraction(default: float) -> Any:
    """A field with a value in [0, 1)."""
    return field(default=default, metadata={"bound": Bound(lambda value: 0 <= value < 1, "in [0, 1)")})
