"""How a model's network uses its levels: the Jacobian of its prediction, level by level.

    python -m ssd.analysis.level_geometry --model runs/digits --data digits --out runs/digits/geometry
    python -m ssd.analysis.level_geometry --model runs/faces --data folder:/data/held_out --timesteps '[100, 400, 700]'

Prints for every timestep, as a mean over images: the effective dimension, that of the best linear denoiser of these
data, its share of the pixels, the asymmetry, the largest and smallest eigenvalue, the coverage of what is shown by the
next coarser level, the invented detail of a level change, the affine share, and the squared error beside Stein's
estimate of it (`ssd.analysis.level_jacobian`, `ssd.analysis.derivatives`). Writes level_geometry.json,
level_geometry.png with the spectra, and eigenvectors.png with the leading eigenvectors of every level at one image.
Predictions are not clipped, which would make derivatives vanish. Ours.
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
from ..data.dataset import ImageDataset
from ..data.some_images import NUM_IMAGES, some_images
from ..evaluation.calibrate import timesteps_of
from ..evaluation.denoising import Denoiser
from ..evaluation.given_images import GivenImages, ImageBatch
from ..process.scale_space import ScaleSpaceProcess
from ..publishing.saving import load_pipeline
from ..seeding import torch_generator
from .derivatives import sure
from .information.gaussian import LevelInformation, effective_dimension
from .information.statistics import image_statistics
from .level_jacobian import LevelJacobian, level_jacobian
from .level_pictures import draw_eigenvectors, draw_spectra
from .means import means
from .network_map import NetworkMap

AUTOMATIC = 3
"""Timesteps per level, beside the changes."""


@dataclass(frozen=True, kw_only=True)
class LevelGeometryConfig(GivenImages):
    """Settings of the study.

    Parameters
    ----------
    timesteps : list of int, optional
        The timesteps to look at. The default is three of every level, evenly in the log-SNR, and every level change.
    out : str
        A folder for level_geometry.json, level_geometry.png and eigenvectors.png.
    """

    num: int = 8
    timesteps: list[int] | None = None
    out: str = "level_geometry"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timesteps is not None and not self.timesteps:
            raise UsageError("--timesteps must name at least one, got an empty list.")

    def chosen(self, process: ScaleSpaceProcess) -> list[int]:
        """The timesteps, descending."""
        if self.timesteps is None:
            levels = range(len(process.resolution.resolutions))
            within = [t for level in levels for t in timesteps_of(process, level, AUTOMATIC)]
            return sorted({*within, *process.required_timesteps}, reverse=True)
        if wrong := [t for t in self.timesteps if not 0 <= t < process.num_timesteps]:
            raise UsageError(f"--timesteps must be in 0..{process.num_timesteps - 1}, got {wrong[0]}.")
        return sorted(set(self.timesteps), reverse=True)


@dataclass(frozen=True)
class Geometry:
    """One timestep: means over images, and the first image's Jacobian.

    Attributes
    ----------
    numbers : dict
        Of the table and the JSON.
    first : LevelJacobian
    x_t : torch.Tensor
        The first image's state, (C, h, w).
    """

    numbers: dict[str, Any]
    first: LevelJacobian
    x_t: torch.Tensor


def linear_dimension(denoiser: Denoiser, dataset: ImageDataset, timesteps: list[int], seed: int) -> dict[int, float]:
    """By timestep the effective dimension of Wiener's filter, from the covariance of at most 2,000 images."""
    process = denoiser.process
    operators = [process.operator(-1, start) for start in process.resolution.level_starts]
    statistics = image_statistics(tqdm(some_images(dataset, NUM_IMAGES, seed), "images", delay=2), operators)
    variances, channels = LevelInformation(statistics, ()).variances, denoiser.unet.config.in_channels
    return {
        t: channels * float(effective_dimension(process.noise.snr[[t]], variances[process.level(t)])) for t in timesteps
    }


def study(
    denoiser: Denoiser, images: ImageBatch, timesteps: list[int], linear: dict[int, float], seed: int
) -> list[Geometry]:
    """Differentiate the network at every timestep and image.

    Parameters
    ----------
    denoiser : Denoiser
    images : ImageBatch
    timesteps : list of int
    linear : dict
        `linear_dimension`.
    seed : int
        Of the noise: that of an image depends on the seed, t and the image's number alone.
    """
    process, unet = denoiser.process, denoiser.unet.requires_grad_(False)
    clean = images.x_0.double()
    found = []
    with tqdm(total=len(timesteps) * len(clean), desc="Jacobians", delay=2) as progress:
        for t in timesteps:
            generators = [torch_generator(seed, "geometry noise", t, number) for number in images.numbers]
            noisy = denoiser.noisy(images.x_0, t, generators).double()
            targets = process.degrade(clean, t - 1)
            jacobians, rows = [], []
            for index in range(len(clean)):
                label = None if images.labels is None else images.labels[index]
                predictor = NetworkMap(denoiser.scheduler, unet, t, label)
                jacobians.append(level_jacobian(process, predictor, noisy[index], t, seed))
                rows.append(_numbers(process, jacobians[-1], noisy[index], targets[index]))
                progress.update()
            numbers = {**_row(rows, jacobians[0]), "wiener": linear[t]}
            found.append(Geometry(numbers, jacobians[0], noisy[0]))
    return found


def _numbers(
    process: ScaleSpaceProcess, found: LevelJacobian, x_t: torch.Tensor, target: torch.Tensor
) -> dict[str, float | None]:
    numbers: dict[str, float | None] = {
        "d_eff": found.d_eff,
        "+-": found.d_eff_error or None,
        "share": found.d_eff / x_t.numel(),
        "asymmetry": found.asymmetry,
        "largest": float(found.eigenvalues[0]),
        "smallest": found.smallest,
        "coverage": found.coverage,
        "invented": found.invented,
        "affine": found.affine,
        "error": float((found.prediction - target).square().mean()),
        "sure": None,
    }
    if not found.changes:
        a_t, sigma_t = float(process.signal(found.t)), float(process.sigma(found.t))
        numbers["sure"] = sure(x_t / a_t, found.prediction, sigma_t / a_t, found.d_eff) / x_t.numel()
    return numbers


def _row(rows: list[dict[str, float | None]], first: LevelJacobian) -> dict[str, Any]:
    """The means, with t and the sizes."""
    return {"t": first.t, "size": first.size, "target_size": first.target_size, **means(rows)}


COLUMNS = (
    *("d_eff", "+-", "wiener", "share", "asymmetry", "largest", "smallest"),
    *("coverage", "invented", "affine", "error", "sure"),
)


def format_table(found: list[Geometry]) -> str:
    """A line per timestep, for people."""
    names = [name for name in COLUMNS if any(geometry.numbers[name] is not None for geometry in found)]
    lines = [f"{'state':>20} {'t':>4} " + " ".join(f"{name:>9}" for name in names)]
    for numbers in (geometry.numbers for geometry in found):
        (h, w), (height, width) = numbers["size"], numbers["target_size"]
        state = f"{h} x {w}" if (h, w) == (height, width) else f"{h} x {w} to {height} x {width}"
        cells = ["" if numbers[name] is None else f"{numbers[name]:.4g}" for name in names]
        lines.append(f"{state:>20} {numbers['t']:4d} " + " ".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def write(found: list[Geometry], about: dict[str, Any], out: Path) -> list[Path]:
    """The files, and their paths."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [{**geometry.numbers, "eigenvalues_at_first": geometry.first.eigenvalues.tolist()} for geometry in found]
    write_json(out / "level_geometry.json", {**about, "timesteps": rows})
    save_figure(draw_spectra([geometry.first for geometry in found]), out / "level_geometry.png")
    pictured = [(geometry.first, geometry.x_t) for geometry in found]
    save_figure(draw_eigenvectors(pictured), out / "eigenvectors.png")
    return [out / name for name in ("level_geometry.json", "level_geometry.png", "eigenvectors.png")]


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.analysis.level_geometry", description=__doc__)
        parser.add_class_arguments(LevelGeometryConfig)
        config = LevelGeometryConfig(**parser.parse_args(arguments).as_dict())
        check_output_folder(config.out, "--out")
        pyplot()
        if config.device not in (None, "cpu"):
            raise UsageError(f"Jacobians are computed on the CPU, got --device {config.device}: leave it out.")
        pipeline = load_pipeline(config.model, "cpu")
        denoiser = Denoiser(pipeline)
        if denoiser.scheduler.config.blur_sigma_max:
            raise UsageError("This is for models without blur, whose levels have one image each.")
        timesteps, images = config.chosen(denoiser.process), config.open(pipeline)
    with exit_on_usage_error():
        batches = list(images)
        together = ImageBatch(
            torch.cat([batch.x_0 for batch in batches]),
            images.numbers,
            None if batches[0].labels is None else [label for batch in batches for label in batch.labels or []],
        )
        linear = linear_dimension(denoiser, images.dataset, timesteps, config.seed)
        found = study(denoiser, together, timesteps, linear, config.seed)
        print(f"means over {len(images)} images of {config.data}")  # noqa: T201
        print(format_table(found))  # noqa: T201
        about = {"model": config.model, "data": config.data, "images": images.numbers, "seed": config.seed}
        for path in write(found, about, Path(config.out)):
            print(f"wrote {path}")  # noqa: T201


if __name__ == "__main__":
    main()
