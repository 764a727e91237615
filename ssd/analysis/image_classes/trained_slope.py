"""Whether a trained denoiser reaches the rate of its class: output PSNR against input PSNR, of images it has not seen.

For a denoiser that `python -m ssd.analysis.denoisers` trained on `calpha:ALPHA`, `discs` or `sines`. The slope of the
best denoiser is alpha / (alpha + 1) for C^alpha images, and 1 for manifolds of few dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...commands.drawing import pyplot, save_figure
from ...commands.errors import UsageError
from ...data import open_dataset
from ...data.readers.image_classes import CAlphaImages, ImageClass
from ..denoisers.bias_free import BiasFreeDenoiser
from ..denoisers.denoising import noise_probes, psnr
from ..denoisers.saved import DESCRIPTION, load_denoiser
from .psnr_slopes import expected_slope, fit_slope, sigma_of_psnr

INPUT_PSNR = tuple(float(level) for level in range(0, 43, 2))
"""In dB, the paper's range."""


@dataclass(frozen=True)
class TrainedSlope:
    """What `trained_slope` found.

    Attributes
    ----------
    data : str
        The class that the denoiser learned.
    images : int
        How many images it was tried on, of the split `test`.
    window : list of float
        The input PSNR in dB between which the line was fitted.
    expected, fitted : float
        Slopes.
    input_psnr, output_psnr : list of float
        In dB.
    """

    data: str
    images: int
    window: list[float]
    expected: float
    fitted: float
    input_psnr: list[float]
    output_psnr: list[float]


def open_trained(folder: Path) -> tuple[BiasFreeDenoiser, ImageClass]:
    """A saved denoiser, and the test images of the class that it learned, at its size.

    Raises
    ------
    UsageError
        When there is no denoiser, or it learned other images.
    """
    network = load_denoiser(folder)
    settings = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")).get("settings", {})
    data = str(settings.get("data"))
    if data.partition(":")[0] in ("calpha", "discs", "sines") and {"res", "channels"} <= settings.keys():
        dataset = open_dataset(data, settings["res"], split="test", channels=settings["channels"])
        if isinstance(dataset, ImageClass):
            return network, dataset
    raise UsageError(
        f"The denoiser in {folder} learned {data}, of which no slope is known: train one on calpha:ALPHA, discs or "
        "sines."
    )


def trained_slope(
    network: BiasFreeDenoiser, dataset: ImageClass, num: int, window: Sequence[float], seed: int = 0
) -> TrainedSlope:
    """Measure a denoiser on the first `num` images of a class, with noise drawn by the seed.

    Parameters
    ----------
    network : BiasFreeDenoiser
    dataset : ImageClass
    num : int
    window : (low, high)
        The input PSNR in dB between which the line is fitted.
    seed : int
    """
    images = torch.stack([torch.as_tensor(dataset[index]["image"]) for index in range(num)]) / 2 + 0.5
    probes = noise_probes(images, seed, [sigma_of_psnr(level) for level in INPUT_PSNR])
    output = psnr(lambda y, sigma: network.denoise(y), probes)
    expected = expected_slope(dataset.alpha) if isinstance(dataset, CAlphaImages) else 1.0
    fitted = fit_slope(INPUT_PSNR, output, window)
    return TrainedSlope(dataset.request.spec, num, list(window), expected, fitted, list(INPUT_PSNR), output)


def draw_trained_slope(found: TrainedSlope, path: Path) -> None:
    """The denoiser's curve, a line of the expected slope through its upper end, and the identity; writes a PNG."""
    figure, panel = pyplot().subplots(figsize=(5.5, 4.2), layout="constrained")
    panel.plot(found.input_psnr, found.input_psnr, color="0.7", label="no denoising")
    panel.plot(found.input_psnr, found.output_psnr, marker="o", markersize=4, label=f"slope {found.fitted:.3f}")
    low, high = found.window
    end = max(zip(found.input_psnr, found.output_psnr), key=lambda point: (point[0] <= high, point[0]))[1]
    line = [end - found.expected * (high - low), end]
    panel.plot([low, high], line, "--", label=f"expected slope {found.expected:.3f}")
    panel.set(xlabel="input PSNR (dB)", ylabel="output PSNR (dB)", title=found.data)
    panel.legend(frameon=False, fontsize="small")
    panel.grid(alpha=0.3)
    save_figure(figure, path)
