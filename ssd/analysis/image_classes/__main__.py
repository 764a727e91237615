"""Images of a known geometry: pictures of each class, and what theory says of its best denoiser.

    python -m ssd.analysis.image_classes --out runs/image_classes
    python -m ssd.analysis.image_classes --out runs/image_classes --alphas '[1, 2, 3, 5]' --res 64 --num 8
    python -m ssd.analysis.image_classes --out runs/image_classes --denoiser runs/denoiser --fit_window '[24, 42]'

Writes image_classes.png, a row of images per class; psnr_slopes.png, how the error falls with the noise for C^alpha
images, without a network; and image_classes.json with the slopes, and with the dimensions that the best denoiser finds
in discs, sines and the rescaled copies of one image. With --denoiser, the folder of a denoiser that
`python -m ssd.analysis.denoisers` trained on one of the classes, also trained_slope.png, the same slope of a network.
The formulas are in `ssd.data.image_classes`, and in `psnr_slopes` and `tangents` beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...commands.drawing import pyplot, save_figure
from ...commands.errors import UsageError, exit_on_usage_error
from ...commands.files import write_json
from ...commands.output_paths import check_output_folder
from ...commands.parser import CommandParser
from ...data.image_classes import (
    c_alpha_image,
    c_alpha_numbers,
    disc_image,
    disc_parameters,
    pixel_permutation,
    rescaled_image,
    shuffle,
    sine_image,
    sine_parameters,
)
from ...seeding import torch_generator
from .psnr_slopes import expected_slope, fit_slope, oracle_curve
from .tangents import ImageOf, local_posterior, principal_angles, tangent_basis
from .trained_slope import TrainedSlope, draw_trained_slope, open_trained, trained_slope

FILES = ("image_classes.png", "psnr_slopes.png", "image_classes.json", "trained_slope.png")
"""The last only with --denoiser."""

INPUT_PSNR = tuple(float(psnr) for psnr in range(0, 81, 2))
WINDOW = (40.0, 80.0)
"""Input PSNR in dB, and the part of it where a slope is fitted: little noise, as the theory asks for."""

TANGENT_SIGMA = 1e-4
"""The noise of the tangent check, small against the curvature of every class."""


@dataclass(frozen=True, kw_only=True)
class ImageClassesConfig:
    """Settings of the pictures and of the numbers beside them.

    Parameters
    ----------
    out : str
        The folder for the PNGs and a JSON file.
    alphas : list of float
        The regularities of the C^alpha images, positive.
    res : int
        The side of the images in pixels, 8..256.
    num : int
        The number of images of each class, 1..32.
    seed : int
        The seed of the images, and of the noise. 0 gives the images of the data sets.
    denoiser : str, optional
        The folder of a trained denoiser.
    fit_window : list of float
        The input PSNR in dB between which its slope is fitted, in 0..42: the upper range, where there is little noise.
    test_images : int
        The number of unseen images that it is tried on, 1..10000.
    """

    out: str
    alphas: list[float] = field(default_factory=lambda: [1.0, 2.0, 3.0, 5.0])
    res: int = 64
    num: int = 8
    seed: int = 0
    denoiser: str | None = None
    fit_window: list[float] = field(default_factory=lambda: [24.0, 42.0])
    test_images: int = 64

    def __post_init__(self) -> None:
        if not self.alphas or not all(0 < alpha < 100 for alpha in self.alphas):
            raise UsageError(f"--alphas must be numbers above 0 and below 100, got {self.alphas}.")
        for name, low, high in (("res", 8, 256), ("num", 1, 32), ("seed", 0, 2**32 - 1), ("test_images", 1, 10_000)):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"--{name} must be in {low}..{high}, got {getattr(self, name)}.")
        window = self.fit_window
        if len(window) != 2 or not 0 <= window[0] <= window[1] - 4 <= 38:
            raise UsageError(f"--fit_window must be two numbers in 0..42, at least 4 apart, got {window}.")


@dataclass(frozen=True)
class SlopeRow:
    """How the error falls with the noise for one regularity, without a network.

    Attributes
    ----------
    alpha : float
    expected : float
        alpha / (alpha + 1), the limit of little noise.
    fitted : float
        The slope over `WINDOW`.
    output_psnr : list of float
        -10 log10 of the whole error, not divided by a number of pixels, at each of `INPUT_PSNR`.
    """

    alpha: float
    expected: float
    fitted: float
    output_psnr: list[float]


@dataclass(frozen=True)
class TangentRow:
    """The best denoiser of a manifold at its first image.

    Attributes
    ----------
    name : str
    dimensions : int
        p, the number of parameters.
    error : float
        Its expected squared error over sigma^2, the sum of the eigenvalues of its Jacobian; p in the limit.
    beyond : float
        The next eigenvalue after the first p; 0 in the limit.
    largest_angle : float
        Between its first p eigenvectors and the tangent space, in degrees.
    """

    name: str
    dimensions: int
    error: float
    beyond: float
    largest_angle: float


def class_images(config: ImageClassesConfig) -> dict[str, torch.Tensor]:
    """The first images of each class, (num, H, W) in [0, 1], by name."""
    size, numbers = (config.res, config.res), range(config.num)
    images = {
        f"C^{alpha:g}": torch.from_numpy(
            np.stack([c_alpha_image(*c_alpha_numbers(config.seed, i, size), alpha=alpha) for i in numbers])
        )
        for alpha in config.alphas
    }
    first = next(iter(images.values()))[0]
    discs = torch.stack([disc_image(disc_parameters(config.seed, i, size), size) for i in numbers])
    scales = torch.arange(config.num, 0, -1, dtype=torch.float64) / config.num
    return images | {
        "discs": discs,
        "sines": torch.stack([sine_image(sine_parameters(config.seed, i), size) for i in numbers]),
        "one image,\nrescaled": torch.stack([rescaled_image(scale, first) for scale in scales[:, None]]),
        "discs,\nshuffled": shuffle(discs, pixel_permutation(config.seed, size)),
    }


def slope_row(alpha: float) -> SlopeRow:
    """The network-free slope of one regularity."""
    curve = oracle_curve(alpha, INPUT_PSNR)
    return SlopeRow(alpha, expected_slope(alpha), fit_slope(INPUT_PSNR, curve, WINDOW), curve)


def tangent_rows(config: ImageClassesConfig) -> list[TangentRow]:
    """The tangent check of the three manifolds; see `ssd.analysis.image_classes.tangents`."""
    size = (config.res, config.res)
    image = disc_image(disc_parameters(config.seed, 0, size), size)
    manifolds: dict[str, tuple[ImageOf, torch.Tensor]] = {
        "discs": (lambda theta: disc_image(theta, size), disc_parameters(config.seed, 0, size)),
        "sines": (lambda theta: sine_image(theta, size), sine_parameters(config.seed, 0)),
        "one image, rescaled": (lambda theta: rescaled_image(theta, image), torch.ones(1, dtype=torch.float64)),
    }
    return [_tangent_row(name, *manifold, config.seed) for name, manifold in manifolds.items()]


def _tangent_row(name: str, image_of: ImageOf, parameters: torch.Tensor, seed: int) -> TangentRow:
    count = len(parameters)
    tangent = tangent_basis(image_of, parameters)
    noise = torch.randn(image_of(parameters).shape, generator=torch_generator(seed, "tangent"), dtype=torch.float64)
    found = local_posterior(image_of, parameters, noise, TANGENT_SIGMA, seed=seed)
    angle = float(np.degrees(principal_angles(found.vectors, tangent).max()))
    return TangentRow(name, count, float(found.eigenvalues.sum()), float(found.eigenvalues[count]), angle)


def draw_images(images: Mapping[str, torch.Tensor], path: Path) -> None:
    """A row of images per class; writes a PNG."""
    num, res = len(next(iter(images.values()))), next(iter(images.values())).shape[-1]
    inches = 6 / max(num, 6)
    figure, rows = pyplot().subplots(
        len(images), squeeze=False, figsize=(inches * num + 1, inches * len(images)), layout="constrained"
    )
    for (name, of_class), row in zip(images.items(), rows[:, 0]):
        padded = torch.nn.functional.pad(of_class, (1, 1, 1, 1), value=1.0)
        row.imshow(torch.cat(list(padded), dim=1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        row.set_yticks([res / 2], [name])
        row.set_xticks([])
        row.tick_params(length=0)
        row.spines[:].set_visible(False)
    save_figure(figure, path)


def draw_slopes(slopes: Sequence[SlopeRow], path: Path) -> None:
    """The error against the noise, with straight lines of the expected slopes; writes a PNG."""
    figure, panel = pyplot().subplots(figsize=(5.5, 4.2), layout="constrained")
    for colour, row in enumerate(slopes):
        line = [row.output_psnr[-1] + row.expected * (psnr - INPUT_PSNR[-1]) for psnr in WINDOW]
        panel.plot(INPUT_PSNR, row.output_psnr, color=f"C{colour}", label=f"alpha = {row.alpha:g}")
        panel.plot(WINDOW, line, "--", color=f"C{colour}", label=f"slope {row.expected:.3f}")
    panel.set(xlabel="input PSNR (dB)", ylabel="-10 log10 of the whole error (dB)")
    panel.legend(frameon=False, fontsize="small")
    panel.grid(alpha=0.3)
    save_figure(figure, path)


def format_tables(slopes: Sequence[SlopeRow], tangents: Sequence[TangentRow]) -> str:
    """Both tables, for people."""
    lines = [f"{'alpha':>6} {'alpha/(alpha+1)':>16} {'slope':>8}"]
    lines += [f"{row.alpha:6g} {row.expected:16.4f} {row.fitted:8.4f}" for row in slopes]
    lines += ["", f"{'manifold':20} {'dimensions':>10} {'error/sigma^2':>14} {'next':>9} {'largest angle':>14}"]
    lines += [
        f"{row.name:20} {row.dimensions:10d} {row.error:14.3f} {row.beyond:9.1e} {row.largest_angle:10.4f} deg"
        for row in tangents
    ]
    return "\n".join(lines)


def report(
    config: ImageClassesConfig,
    slopes: Sequence[SlopeRow],
    tangents: Sequence[TangentRow],
    trained: TrainedSlope | None = None,
) -> dict[str, Any]:
    """What image_classes.json says."""
    return {
        "settings": {key: value for key, value in asdict(config).items() if key != "out"},
        "fit_window_db": list(WINDOW),
        "input_psnr_db": list(INPUT_PSNR),
        "slopes": [asdict(row) for row in slopes],
        "tangent_sigma": TANGENT_SIGMA,
        "tangents": [asdict(row) for row in tangents],
        "trained": None if trained is None else asdict(trained),
    }


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.analysis.image_classes", description=__doc__)
        parser.add_class_arguments(ImageClassesConfig)
        config = ImageClassesConfig(**parser.parse_args(arguments).as_dict())
        check_output_folder(config.out, "--out")
        pyplot()
        studied = None if config.denoiser is None else open_trained(Path(config.denoiser))
    with exit_on_usage_error():
        slopes, tangents = [slope_row(alpha) for alpha in config.alphas], tangent_rows(config)
        pictures, curves, numbers, trained_curve = (Path(config.out) / name for name in FILES)
        written, trained = [pictures, curves, numbers], None
        draw_images(class_images(config), pictures)
        draw_slopes(slopes, curves)
        if studied is not None:
            trained = trained_slope(*studied, config.test_images, config.fit_window, config.seed)
            draw_trained_slope(trained, trained_curve)
            written.append(trained_curve)
        write_json(numbers, report(config, slopes, tangents, trained))
    print(format_tables(slopes, tangents))  # noqa: T201
    if trained is not None:
        print(f"\n{trained.data}: slope {trained.fitted:.4f} of the denoiser, {trained.expected:.4f} of the theory")  # noqa: T201
    print(f"wrote {', '.join(map(str, written))}")  # noqa: T201


if __name__ == "__main__":
    main()
