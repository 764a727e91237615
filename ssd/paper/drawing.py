"""Matplotlib without a screen."""

from __future__ import annotations

from typing import Any

from ..commands.errors import UsageError


def pyplot() -> Any:
    """matplotlib.pyplot, drawing into files; a `UsageError` where matplotlib is not installed."""
    try:
        import matplotlib

        matplotlib.use("agg")
        import matplotlib.pyplot as plt
    except ModuleNotFoundError:
        raise UsageError("Figures need matplotlib, which is not installed: pip install matplotlib.") from None
    return plt
