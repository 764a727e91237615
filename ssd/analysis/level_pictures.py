"""Pictures of Jacobians, level by level: spectra, and eigenvectors as images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..commands.drawing import pyplot
from .level_jacobian import LevelJacobian

NUM_VECTORS = 8


def draw_spectra(found: Sequence[LevelJacobian]) -> Any:
    """The eigenvalues of the first image, a line per timestep: within levels, and at changes."""
    figure, axes = pyplot().subplots(1, 2, figsize=(11, 3.8), layout="constrained", sharey=True)
    for axis, title, kind in zip(axes, ("within levels", "at level changes"), (False, True)):
        for jacobian in (jacobian for jacobian in found if jacobian.changes == kind):
            numbers = range(1, len(jacobian.eigenvalues) + 1)
            height, width = jacobian.size
            axis.plot(
                numbers, jacobian.eigenvalues.numpy(), ".-", label=f"{height} x {width}, t = {jacobian.t}", linewidth=1
            )
        axis.axhline(0, color="k", linewidth=0.6)
        axis.axhline(1, color="k", linewidth=0.6, linestyle=":")
        axis.set(xscale="log", xlabel="eigenvector k", title=title)
        axis.grid(alpha=0.3)
        if axis.lines[:-2]:  # beside the two that mark 0 and 1
            axis.legend(fontsize="x-small")
    axes[0].set_ylabel("eigenvalue of the symmetric part")
    return figure


def draw_eigenvectors(found: Sequence[tuple[LevelJacobian, torch.Tensor]]) -> Any:
    """A row per timestep, noisiest first: the state, the prediction, and the leading eigenvectors."""
    columns = 2 + NUM_VECTORS
    figure, axes = pyplot().subplots(
        len(found), columns, figsize=(1.15 * columns, 1.3 * len(found)), layout="constrained", squeeze=False
    )
    for row, (jacobian, x_t) in zip(axes, found):
        for axis in row:
            axis.axis("off")
        _show(row[0], x_t, f"$x_{{{jacobian.t}}}$")
        _show(row[1], jacobian.prediction, "prediction")
        for number in range(min(NUM_VECTORS, jacobian.vectors.shape[1])):
            vector = jacobian.vectors[:, number].view(x_t.shape)
            _show(row[2 + number], vector, f"{float(jacobian.eigenvalues[number]):.2f}", signed=True)
    return figure


def _show(axis: Any, image: torch.Tensor, title: str, signed: bool = False) -> None:
    """An image (C, h, w): grey or in colour; an eigenvector of one channel from blue to red."""
    axis.set_title(title, fontsize="x-small", pad=2)
    if len(image) == 1:
        limit = float(image.abs().max()) if signed else 1.0
        axis.imshow(
            image[0].numpy(), cmap="RdBu_r" if signed else "gray", vmin=-limit, vmax=limit, interpolation="nearest"
        )
    else:
        scale = float(image.abs().max()) if signed else 1.0
        axis.imshow((image / scale / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
