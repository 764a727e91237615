"""The figures of the method: kernels, states, schedules and routes.

    python docs/figures.py docs/generated/figures

`make docs` draws them before it reads the pages. Everything in them is computed by the project's own code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_sample_image

from flexi_unet.routing import Route, plan_route, stage_sizes
from ssd import SSDScheduler
from ssd.commands.drawing import pyplot, save_figure
from ssd.operators.kernels import KERNELS, dct_matrix
from ssd.operators.resize import resize_operator
from ssd.paper.figures import schedules

USED, UNUSED, ZEROS = "#2f6fb7", "#e8ebef", "#9dc3ea"


def draw(out: Path) -> None:
    """Write all of them into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Callable[[], Any]] = {
        "kernels": kernels,
        "states": states,
        "schedules": schedules,
        "knowledge": knowledge,
        "routes": routes,
    }
    for name, figure in figures.items():
        save_figure(figure(), out / f"{name}.png")


def kernels() -> Any:
    """Of every kernel, 64 to 32 pixels: the weights of one pixel, what becomes of a frequency, the singular values."""
    figure, (weights, response, values) = pyplot().subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for name, kernel in KERNELS.items():
        matrix = kernel(64, 32)
        weights.plot(np.arange(64) - 32.5, matrix[16], ".-", markersize=4, label=name)
        response.plot(np.arange(64) / 64, (matrix @ dct_matrix(64).T).norm(dim=0), label=name)
        values.plot(torch.linalg.svdvals(matrix), label=name)
    weights.set(title="the weights of one pixel", xlabel="pixels from its centre", xlim=(-8, 8))
    response.set(title="what is left of a cosine", xlabel="frequency, 1: one wave in two pixels", ylim=(0, None))
    response.axvline(0.5, color="k", linestyle="--", linewidth=1)
    values.set(title=r"singular values $\lambda_i$ of one axis", xlabel="i", ylim=(0, None))
    for axis in (weights, response, values):
        axis.grid(alpha=0.3)
    weights.legend(fontsize="small")
    return figure


def photograph(side: int) -> torch.Tensor:
    """The middle of a photograph that scikit-learn brings along, (1, 3, side, side) in [-1, 1]."""
    pixels = torch.tensor(load_sample_image("china.jpg"), dtype=torch.float64)[:400, 120:520]
    full = pixels.permute(2, 0, 1)[None] / 127.5 - 1
    return resize_operator((400, 400), (side, side)).forward(full)


def states() -> Any:
    """x_t at seven timesteps, at its true relative size, above what it shows of the image, D_t x_0."""
    scheduler = SSDScheduler(sample_size=64, num_levels=4)
    process, x_0 = scheduler.process, photograph(64)
    timesteps = [-1, 100, 300, 500, 700, 880, 960]
    noise = torch.Generator().manual_seed(0)
    figure, axes = pyplot().subplots(2, len(timesteps), figsize=(13, 4.2), layout="constrained")
    for (state, clean), t in zip(axes.T, timesteps):
        shown = process.degrade(x_0, t)
        x_t = process.signal(t) * shown
        x_t = x_t + process.sigma(t) * torch.randn(shown.shape, generator=noise, dtype=torch.float64)
        state.set_title("clean image" if t == -1 else f"t = {t}")
        clean.set_xlabel(f"{process.size(t)[0]} x {process.size(t)[1]} pixels")
        for axis, image in ((state, x_t), (clean, shown)):
            _show(axis, image, 64)
    axes[0, 0].set_ylabel("$x_t$")
    axes[1, 0].set_ylabel("$D_t x_0$")
    return figure


def _show(axis: Any, image: torch.Tensor, full: int) -> None:
    """An image in the middle of a field of the full size."""
    height, width = image.shape[-2:]
    axis.imshow(
        (image[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1),
        extent=((full - width) / 2, (full + width) / 2, (full + height) / 2, (full - height) / 2),
        interpolation="nearest",
    )
    axis.set(xlim=(0, full), ylim=(full, 0), xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set_color("#cccccc")


def knowledge() -> Any:
    """Variances of the step across a level change, coordinate by coordinate: theorem 3 in the operator's basis."""
    process = SSDScheduler(sample_size=16, num_levels=3).process
    figure, (seen, left) = pyplot().subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    t = process.required_timesteps[0]
    for step, name in ((t - 1, "inside a level"), (t, "a level change")):
        lam = torch.linalg.svdvals(process.operator(step - 1, step).to_dense())  # descending
        c = process.signal(step) / process.signal(step - 1)
        share = torch.zeros(256, dtype=torch.float64)
        share[: len(lam)] = (process.sigma(step - 1) * c * lam / process.sigma(step)).square()
        seen.plot(share, label=f"{name}, t = {step}")
        left.plot(process.sigma(step - 1).square() * (1 - share), label=f"{name}, t = {step}")
    seen.set(title=r"share of $\sigma_s^2$ that comes from $x_t$", xlabel="singular direction")
    left.set(title="variance that is drawn anew", xlabel="singular direction")
    for axis in (seen, left):
        axis.grid(alpha=0.3)
    seen.legend()
    return figure


def routes() -> Any:
    """Flexi-UNet of four stages with two blocks each: which blocks run, for every pair of sizes of four levels."""
    sizes, layers = stage_sizes(64, 4), [2] * 4
    pairs = [(64, 64), (32, 64), (32, 32), (16, 32), (16, 16), (8, 16), (8, 8)]
    figure, axes = pyplot().subplots(2, 4, figsize=(13, 6), layout="constrained")
    for axis, (entry, exit_) in zip(axes.flat, pairs):
        _draw_route(axis, plan_route((entry, entry), (exit_, exit_), sizes, layers), [size[0] for size in sizes])
        axis.set_title(f"{entry} x {entry}" if entry == exit_ else f"{entry} x {entry} to {exit_} x {exit_}")
    _legend(axes.flat[-1])
    return figure


def _draw_route(axis: Any, route: Route, sides: list[int]) -> None:
    """The U: encoder to the left, decoder to the right, a row for every stage, the finest above."""
    decoder = {step.stage: step for step in route.decoder}
    for stage, side in enumerate(sides):
        step = decoder.get(stage)
        for block in range(2):
            _box(axis, block, stage, USED if stage in route.encoder else UNUSED)
        for block in range(3):
            color = UNUSED
            if step is not None and block < step.num_blocks:
                color = USED if block < step.num_skips else ZEROS
            _box(axis, block + 3.5, stage, color)
        axis.text(2.75, stage, side, ha="center", va="center", fontsize="small", color="#555555")
    _box(axis, 2.25, len(sides), USED, width=1.8)
    axis.text(2.75, len(sides), "middle", ha="center", va="center", fontsize="x-small", color="white")
    axis.annotate("", (0, route.entry_stage - 0.4), (0, route.entry_stage - 1), arrowprops={"arrowstyle": "->"})
    last = route.decoder[-1]
    out = 3.5 + last.num_blocks - 1
    axis.annotate("", (out, last.stage - 1), (out, last.stage - 0.4), arrowprops={"arrowstyle": "->"})
    axis.set(xlim=(-0.7, 6.2), ylim=(4.6, -1.1))
    axis.axis("off")


def _box(axis: Any, x: float, y: float, color: str, width: float = 0.8) -> None:
    axis.add_patch(pyplot().Rectangle((x - 0.4, y - 0.35), width, 0.7, color=color))


def _legend(axis: Any) -> None:
    for row, (color, text) in enumerate(
        [(USED, "runs"), (ZEROS, "runs, with zeros for the encoder's feature"), (UNUSED, "does not run")]
    ):
        _box(axis, 0, row, color)
        axis.text(0.8, row, text, va="center", fontsize="small")
    axis.text(-0.4, 3.2, "left: encoder, two blocks a stage\nright: decoder, three blocks a stage", fontsize="small")
    axis.set(xlim=(-0.7, 6.2), ylim=(4.6, -1.1))
    axis.axis("off")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
