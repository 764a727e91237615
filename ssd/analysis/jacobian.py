"""The Jacobian of a denoiser of one size at images of a data set: what it keeps, and in which directions.

    python -m ssd.analysis.jacobian --denoiser runs/denoiser --data digits --res 8 --out runs/denoiser/jacobian
    python -m ssd.analysis.jacobian --denoiser gaussian --data digits --res 8 --out runs/wiener

The denoiser is a folder of `python -m ssd.analysis.denoisers`, or an exact one of these images: gaussian (the Wiener
filter) or empirical (the memoriser). Prints for every noise level, as a mean over images: the effective dimension tr J,
the asymmetry, the largest and smallest eigenvalue of the symmetric part, the squared error beside two estimates of it
(Stein's, and sigma^2 tr J, which is that of a perfect denoiser), the energy of the clean image in the 16 leading
eigenvectors, and |f - J y| / |f|, which is 0 for bias-free networks. Writes jacobian.json and jacobian.png. For
diffusion models of several levels there is `ssd.analysis.level_geometry`. After arXiv:2310.02557, sections 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..commands.drawing import pyplot, save_figure
from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.files import write_json
from ..commands.output_paths import check_output_folder
from ..commands.parser import CommandParser
from ..data import ImageStream, open_dataset
from ..data.dataset import ImageDataset
from ..data.some_images import some_images
from ..seeding import torch_generator
from .denoisers.bias_free import BiasFreeDenoiser
from .denoisers.denoising import SIGMAS, Denoise
from .denoisers.exact import EmpiricalDenoiser, GaussianDenoiser
from .denoisers.saved import load_denoiser
from .derivatives import (
    LARGEST_DENSE,
    ImplicitMap,
    Spectrum,
    asymmetry,
    dense_jacobian,
    leading_spectrum,
    probe,
    random_signs,
    spectrum,
    sure,
)
from .means import means

EXACT = ("gaussian", "empirical")
NUM_LEADING, NUM_PROBES, NUM_PICTURED = 16, 64, 8


@dataclass(frozen=True, kw_only=True)
class JacobianConfig:
    """Settings of the study.

    Parameters
    ----------
    denoiser : str
        A folder with a saved denoiser, or gaussian, or empirical.
    data : str
        The data set, as for training; best of images that the denoiser has not learned from.
    res : int
        The side of the images in pixels.
    channels : int
        1 for grey, 3 for colour.
    split : str
        The part of the data set.
    images : int
        The number of images at which the Jacobian is taken, drawn by the seed.
    num : int
        The number of images that an exact denoiser is made of, drawn by the same seed; those of the Jacobians may be
        among them.
    sigmas : list of float, optional
        Noise levels for images in [0, 1]. The default is 0.02, 0.05, 0.1, 0.2, 0.4 and 0.8.
    seed : int
        The seed of the choice and of the noise.
    out : str
        A folder for jacobian.json and jacobian.png.
    """

    denoiser: str
    data: str
    res: int
    channels: int = 1
    split: str = "train"
    images: int = 4
    num: int = 2000
    sigmas: list[float] | None = None
    seed: int = 0
    out: str

    def __post_init__(self) -> None:
        for name, low in (("res", 1), ("images", 1), ("num", 2), ("seed", 0)):
            if getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")
        if self.sigmas is not None and (not self.sigmas or min(self.sigmas) <= 0):
            raise UsageError(f"--sigmas must be positive numbers, such as '[0.1, 0.4]', got {self.sigmas}.")


def open_data(config: JacobianConfig) -> ImageDataset:
    """The data set."""
    dataset = open_dataset(config.data, config.res, split=config.split, channels=config.channels)
    if isinstance(dataset, ImageStream):
        raise UsageError(f"--data {config.data} is a stream: give data with a length.")
    return dataset


def read_images(dataset: ImageDataset, number: int, seed: int) -> torch.Tensor:
    """At most `number` images drawn by the seed, (N, C, H, W), float64 in [0, 1]."""
    return torch.stack(list(some_images(dataset, number, seed))).double() / 2 + 0.5


def open_denoiser(config: JacobianConfig, dataset: ImageDataset) -> Denoise:
    """f(y, sigma), differentiable."""
    if config.denoiser in EXACT:
        images = read_images(dataset, config.num, config.seed)
        if len(images) < 2:
            raise UsageError(f"An exact denoiser is made of two images or more, and --data {config.data} has 1.")
        return GaussianDenoiser.fitted(images) if config.denoiser == "gaussian" else EmpiricalDenoiser(images)
    network: BiasFreeDenoiser = load_denoiser(config.denoiser).double().requires_grad_(False)
    network.check_size((config.res, config.res))
    try:
        network.denoise(torch.zeros(1, config.channels, config.res, config.res, dtype=torch.float64))
    except RuntimeError as error:
        raise UsageError(
            f"The denoiser in {config.denoiser} does not take images of {config.channels} channel(s): give "
            "its --channels."
        ) from error
    return lambda y, sigma: network.denoise(y)


@dataclass(frozen=True)
class DenoiserJacobian:
    """What the Jacobian at one noisy image says.

    Attributes
    ----------
    numbers : dict
        Of the table.
    noisy, denoised : torch.Tensor
        (C, H, W).
    spectrum : Spectrum
        All eigenvalues of up to `LARGEST_DENSE` numbers, else the leading ones.
    """

    numbers: dict[str, float | None]
    noisy: torch.Tensor
    denoised: torch.Tensor
    spectrum: Spectrum


def differentiate(denoise: Denoise, clean: torch.Tensor, sigma: float, generator: torch.Generator) -> DenoiserJacobian:
    """The Jacobian at one draw of y = x + sigma z.

    Parameters
    ----------
    denoise : callable
    clean : torch.Tensor
        x, (C, H, W), float64 in [0, 1].
    sigma : float
    generator : torch.Generator
        Of z, and of the random vectors for large images.
    """
    noisy = clean + sigma * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    denoised, y, size = denoise(noisy[None], sigma)[0].detach(), noisy.flatten(), noisy.numel()

    def function(rows: torch.Tensor) -> torch.Tensor:
        return denoise(rows.view(-1, *clean.shape), sigma).flatten(1)

    smallest, trace_error = None, None
    if size <= LARGEST_DENSE:
        matrix = dense_jacobian(function, y)
        found, linear = spectrum(matrix), matrix @ y
        trace, asymmetric = float(matrix.trace()), asymmetry(matrix)
        smallest = float(found.eigenvalues[-1])
    else:
        implicit = ImplicitMap(function, y)
        probed = probe(implicit, random_signs(NUM_PROBES, size, generator))
        found, linear = leading_spectrum(implicit, size, NUM_LEADING), implicit.apply(y[None])[0]
        trace, trace_error, asymmetric = probed.trace, probed.trace_error, probed.asymmetry
    inside = found.vectors[:, :NUM_LEADING].T @ clean.flatten()
    numbers = {
        "tr J": trace,
        "+-": trace_error,
        "asymmetry": asymmetric,
        "largest": float(found.eigenvalues[0]),
        "smallest": smallest,
        "error": float((denoised - clean).square().sum()),
        "SURE": sure(noisy, denoised, sigma, trace),
        "s^2 tr J": sigma**2 * trace,
        "top 16": float(inside.square().sum() / clean.square().sum()),
        "affine": float((denoised.flatten() - linear).norm() / denoised.norm()),
    }
    return DenoiserJacobian(numbers, noisy, denoised, found)


def format_table(rows: list[dict[str, float | None]]) -> str:
    """A line per noise level, for people."""
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    cells = [["" if row[name] is None else f"{row[name]:.4g}" for name in names] for row in rows]
    return "\n".join(" ".join(f"{cell:>10}" for cell in line) for line in [names, *cells])


def draw(found: list[tuple[float, DenoiserJacobian]]) -> Any:
    """A row per noise level at the first image: the spectrum, what was seen and made of it, leading eigenvectors."""
    columns = 3 + NUM_PICTURED
    figure, axes = pyplot().subplots(
        len(found), columns, figsize=(1.3 * columns, 1.45 * len(found)), layout="constrained", squeeze=False
    )
    for row, (sigma, jacobian) in zip(axes, found):
        eigenvalues = jacobian.spectrum.eigenvalues.numpy()
        row[0].plot(range(1, len(eigenvalues) + 1), eigenvalues, ".", markersize=2)
        row[0].set_title(f"sigma {sigma:g}", fontsize="x-small", pad=2)
        row[0].tick_params(labelsize="xx-small")
        pictures = [(jacobian.noisy, "noisy", False), (jacobian.denoised, "denoised", False)]
        for number in range(min(NUM_PICTURED, jacobian.spectrum.vectors.shape[1])):
            vector = jacobian.spectrum.vectors[:, number].view(jacobian.noisy.shape)
            pictures.append((vector, f"{eigenvalues[number]:.2f}", True))
        for axis, (image, title, signed) in zip(row[1:], pictures):
            # Colour channels are shown as their mean.
            grey, limit = image.mean(dim=0).numpy(), float(image.abs().max())
            low, high = (-limit, limit) if signed else (0, 1)
            axis.imshow(grey, cmap="RdBu_r" if signed else "gray", vmin=low, vmax=high, interpolation="nearest")
            axis.set_title(title, fontsize="x-small", pad=2)
        for axis in row[1:]:
            axis.axis("off")
    return figure


def study(config: JacobianConfig, denoise: Denoise, images: torch.Tensor) -> list[dict[str, float | None]]:
    """All noise levels; writes the files."""
    rows, first = [], []
    sigmas = list(config.sigmas or SIGMAS)
    with tqdm(total=len(sigmas) * config.images, desc="Jacobians", delay=2) as progress:
        for sigma in sigmas:
            found = []
            for index in range(len(images)):
                generator = torch_generator(config.seed, "jacobian", index, round(1e6 * sigma))
                found.append(differentiate(denoise, images[index], sigma, generator))
                progress.update()
            rows.append({"sigma": sigma, **means([one.numbers for one in found])})
            first.append((sigma, found[0]))
    out = Path(config.out)
    spectra = {str(sigma): jacobian.spectrum.eigenvalues.tolist() for sigma, jacobian in first}
    content = {"denoiser": config.denoiser, "data": config.data, "rows": rows, "eigenvalues_at_first": spectra}
    write_json(out / "jacobian.json", content)
    save_figure(draw(first), out / "jacobian.png")
    return rows


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.analysis.jacobian", description=__doc__)
        parser.add_class_arguments(JacobianConfig)
        config = JacobianConfig(**parser.parse_args(arguments).as_dict())
        check_output_folder(config.out, "--out")
        pyplot()
        dataset = open_data(config)
        denoise, images = open_denoiser(config, dataset), read_images(dataset, config.images, config.seed)
    with exit_on_usage_error():
        rows = study(config, denoise, images)
    print(f"means over {len(images)} images of {config.data}")  # noqa: T201
    print(format_table(rows))  # noqa: T201
    for name in ("jacobian.json", "jacobian.png"):
        print(f"wrote {Path(config.out) / name}")  # noqa: T201


if __name__ == "__main__":
    main()
