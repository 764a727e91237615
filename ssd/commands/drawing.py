"""Matplotlib without a screen: asked for before the work, written whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import UsageError
from .files import whole_file


def pyplot() -> Any:
    """matplotlib.pyplot, drawing into files; a `UsageError` where matplotlib is not installed."""
    try:
        import matplotlib

        matplotlib.use("agg")
        import matplotlib.pyplot as plt
    except ModuleNotFoundError:
        raise UsageError("Pictures need matplotlib, which is not installed: pip install matplotlib.") from None
    return plt


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and close it."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    pyplot().close(figure)
