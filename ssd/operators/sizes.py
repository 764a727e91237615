"""Image sizes: the one alias that operators, process, data and evaluation share."""

from __future__ import annotations

Size = tuple[int, int]
"""(height, width) in pixels."""
