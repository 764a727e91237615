"""The figures of the study, after those of arXiv:2310.02557."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...commands.drawing import pyplot, save_figure

PSNR, SAMPLES, COSINES, GAP = "psnr.png", "samples.png", "cosines.png", "gap.png"

Rows = Sequence[dict[str, Any]]
Arrays = Mapping[str, np.ndarray]


def by_size(rows: Rows) -> dict[int, list[dict[str, Any]]]:
    """The rows of every N, ascending."""
    sizes = sorted({row["n"] for row in rows})
    return {size: [row for row in rows if row["n"] == size] for size in sizes}


def draw_psnr(rows: Rows, path: Path) -> None:
    """Output against input PSNR, a curve per N: images that were learned, and images that were not."""
    figure, panels = pyplot().subplots(1, 2, figsize=(8, 3.6), sharex=True, sharey=True, layout="constrained")
    noisy = rows[0]["psnr_noisy"]
    for axes, kind in zip(panels, ("train", "test")):
        for size, group in by_size(rows).items():
            axes.plot(noisy, np.mean([row[f"psnr_{kind}"] for row in group], axis=0), marker=".", label=f"N = {size}")
        axes.plot(noisy, noisy, color="grey", linestyle=":", label="not denoised")
        axes.set(xlabel="PSNR of the noisy images, dB", title={"train": "learned", "test": "not learned"}[kind])
    panels[0].set_ylabel("PSNR after denoising, dB")
    panels[1].legend(fontsize="small")
    save_figure(figure, path)


def draw_gap(rows: Rows, path: Path) -> None:
    """The mean gap between the two, in dB, against N: a dot per seed, a line through the means."""
    figure, axes = pyplot().subplots(figsize=(4, 3.4), layout="constrained")
    axes.plot([row["n"] for row in rows], [max(row["gap"], 1e-3) for row in rows], "o", color="grey", markersize=3)
    means = {size: float(np.mean([row["gap"] for row in group])) for size, group in by_size(rows).items()}
    axes.plot(list(means), [max(value, 1e-3) for value in means.values()], marker="o")
    axes.set(xscale="log", yscale="log", xlabel="N, images learned", ylabel="PSNR learned - not learned, dB")
    save_figure(figure, path)


def draw_cosines(arrays: Mapping[int, Arrays], path: Path) -> None:
    """Histograms per N: two denoisers' samples from the same noise; a sample and its nearest training image."""
    figure, panels = pyplot().subplots(
        1, len(arrays), figsize=(2.6 * len(arrays), 2.6), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    bins = np.linspace(-0.2, 1, 49)
    titles = {"pair": "two denoisers", "nearest": "nearest learned image", "closest": "closest real images"}
    for axes, (size, found) in zip(panels[0], arrays.items()):
        for name, title in titles.items():
            shown = {"histtype": "step", "color": "grey"} if name == "closest" else {"alpha": 0.6}
            axes.hist(found[name], bins, weights=np.full(len(found[name]), 1 / len(found[name])), label=title, **shown)
        axes.set(title=f"N = {size}", xlabel="centred cosine")
    panels[0, 0].legend(fontsize="x-small", loc="upper left")
    panels[0, 0].set_ylabel("share")
    save_figure(figure, path)


def draw_samples(arrays: Mapping[int, Arrays], path: Path) -> None:
    """Per N four rows: nearest learned image, sample of the first; sample of the second, nearest learned image."""
    figure, panels = pyplot().subplots(
        1, len(arrays), figsize=(2.8 * len(arrays), 1.9), layout="constrained", squeeze=False
    )
    names = ("nearest_0", "sample_0", "sample_1", "nearest_1")
    for axes, (size, found) in zip(panels[0], arrays.items()):
        rows = [np.concatenate([_framed(image) for image in found[name]], axis=1) for name in names]
        axes.imshow(np.concatenate(rows, axis=0), interpolation="nearest")
        axes.set(title=f"N = {size}", xticks=[], yticks=[])
    height = panels[0, 0].get_images()[0].get_array().shape[0]
    words = ("nearest in set 1", "denoiser 1", "denoiser 2", "nearest in set 2")
    panels[0, 0].set_yticks([height * (2 * number + 1) / 8 for number in range(4)], words, fontsize="small")
    save_figure(figure, path)


def _framed(image: np.ndarray) -> np.ndarray:
    """(C, H, W) of about [0, 1] -> (H + 2, W + 2, 3), with contrast to the full range, which denoisers leave free."""
    low, high = image.min(), image.max()
    scaled = np.zeros_like(image) if high == low else (image - low) / (high - low)
    colour = np.broadcast_to(scaled, (3, *image.shape[1:])).transpose(1, 2, 0)
    return np.pad(colour, ((1, 1), (1, 1), (0, 0)), constant_values=1)
