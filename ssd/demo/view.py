"""Frames and costs as HTML: pictures enlarged here, pixel by pixel, so that the page itself scales nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import torch
from PIL import Image

from ..data.sizes import size_text
from ..operators.sizes import Size
from ..sampling.pictures import as_picture, to_uint8
from .chains import LevelCost
from .frames import Frame

LARGEST_SIDE = 256
"""Of the finest picture on the page, in pixels of the screen, unless it has more itself."""


GROWING = "<small>The last call of a level grows the picture, and costs about as much as one of the next level.</small>"


def enlargement(size: Size) -> int:
    """By how much pictures of every level are enlarged, where `size` is the finest.

    Examples
    --------
    >>> enlargement((16, 16)), enlargement((256, 256)), enlargement((512, 512))
    (16, 1, 1)
    """
    return max(1, LARGEST_SIDE // max(size))


def picture_uri(picture: torch.Tensor, factor: int) -> str:
    """A tensor (C, h, w) in [-1, 1] as the address of a PNG that holds itself, every pixel `factor` times as large."""
    small = as_picture(to_uint8(picture[None])[0])
    stored = io.BytesIO()
    large = small.resize((small.width * factor, small.height * factor), Image.Resampling.NEAREST)
    large.save(stored, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stored.getvalue()).decode()


def stage_html(
    frame: Frame, sizes: Sequence[Size], clicks: Sequence[Sequence[LevelCost]] = (), factor: int | None = None
) -> str:
    """All levels side by side, coarse to fine: above what the network sees, below what it makes of it.

    Parameters
    ----------
    frame : Frame
    sizes : sequence of (height, width)
        Of the levels, finest first.
    clicks : sequence of sequence of LevelCost
        What a click on each level's picture would cost, finest first; empty where pictures cannot be redrawn.
    factor : int, optional
        The enlargement; default: what suits the finest.
    """
    factor = factor or enlargement(sizes[0])
    order = range(len(sizes) - 1, -1, -1)
    heads = [_head(frame, level, sizes[level]) for level in order]
    states = [_cell(frame.states[level], sizes[level], factor, "state", level) for level in order]
    pictures = []
    for level in order:
        cell = _cell(frame.pictures[level], sizes[level], factor, "picture", level)
        if frame.ending == "done" and level and clicks:
            cell = _button(cell, level, sizes[level], clicks[level])
        pictures.append(cell)
    below = "the finished picture, at every size" if frame.ending == "done" else "what the network expects behind it"
    rows = [
        ("", "heads", heads),
        ("The noisy picture <small>what the network sees</small>", "states", states),
        (f"The clean picture <small>{below}</small>", "pictures", pictures),
    ]
    body = "".join(
        f'<tr class="{name}"><th scope="row">{title}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for title, name, cells in rows
    )
    facts = f'data-ending="{frame.ending}" data-step="{frame.step}" data-factor="{factor}"'
    return f'<table class="stage" {facts}>{body}</table>'


def _head(frame: Frame, level: int, size: Size) -> str:
    running = not frame.ending and frame.steps and level == frame.level
    mark = ' class="now"' if running else ""
    note = "kept" if level == frame.kept else ""
    return f"<div{mark}><b>{size_text(size)}</b> <small>{note}</small></div>"


def _cell(picture: torch.Tensor | None, size: Size, factor: int, kind: str, level: int) -> str:
    """The picture, or an empty place of its size."""
    height, width = size[0] * factor, size[1] * factor
    if picture is None:
        return f'<div class="empty" style="width:{width}px;height:{height}px"></div>'
    name = f"{'noisy' if kind == 'state' else 'clean'} picture of {size_text(size)} pixels"
    uri = picture_uri(picture, factor)
    return f'<img data-kind="{kind}" data-level="{level}" alt="{name}" width="{width}" height="{height}" src="{uri}">'


def _button(cell: str, level: int, size: Size, costs: Sequence[LevelCost]) -> str:
    title = f"Keep what it is at {size_text(size)} pixels and draw everything finer anew: {total_text(costs)}."
    text = f"<span>keep this, redraw finer<small>{total_text(costs)}</small></span>"
    return f'<button type="button" data-redraw="{level}" title="{title}">{cell}{text}</button>'


def ruler_html(costs: Sequence[LevelCost]) -> str:
    """The level ruler: for every level, coarse to fine, what a call costs, and its share of the whole."""
    counted = all(cost.gflops is not None for cost in costs)
    weights = [(cost.gflops or 0.0) if counted else float(cost.calls) for cost in costs]
    unit = "GFLOPs" if counted else ""
    rows = [_ruler_row("head", ["level", f"{unit} a call", "", "calls", unit])]
    for cost, weight in zip(reversed(costs), reversed(weights)):
        bar = f'<div style="width:{100 * weight / (sum(weights) or 1):.1f}%"></div>'
        cells = [size_text(cost.size), _digits(cost.per_call), bar, cost.calls, _digits(cost.gflops)]
        rows.append(_ruler_row("", cells))
    note = GROWING if counted and len(costs) > 1 else ""
    total = f'<p class="total">One picture costs <b>{total_text(costs)}</b>.{note}</p>'
    return f'<table class="ruler">{"".join(rows)}</table>{total}'


def _ruler_row(kind: str, cells: Sequence[object]) -> str:
    name, each, bar, calls, gflops = cells
    return (
        f'<tr class="{kind}"><th scope="row">{name}</th><td>{each}</td><td class="bar">{bar}</td>'
        f"<td>{calls}</td><td>{gflops}</td></tr>"
    )


def total_text(costs: Sequence[LevelCost]) -> str:
    """Network calls and GFLOPs of all levels."""
    calls = f"{sum(cost.calls for cost in costs)} network calls"
    gflops = [cost.gflops for cost in costs if cost.gflops is not None]
    return f"{calls}, {_digits(sum(gflops))} GFLOPs" if len(gflops) == len(costs) else calls


def _digits(value: float | None) -> str:
    """Two digits and more; nothing for what is not known."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 9.95 else f"{value:#.2g}"


def status_html(text: str, kind: str = "note") -> str:
    """A line of text below the buttons; `kind` is "note" or "error"."""
    return f'<p class="status {kind}" role="status">{escape(text)}</p>'


def progress_text(frame: Frame, sizes: Sequence[Size]) -> str:
    """Where a chain is, in words."""
    if frame.ending == "done":
        return "Done."
    if frame.ending == "stopped":
        return f"Stopped after step {frame.step}."
    if not frame.steps:
        return "Waiting for the network .."
    return f"Step {frame.step} of {frame.steps}, at {size_text(sizes[frame.level])} pixels."
