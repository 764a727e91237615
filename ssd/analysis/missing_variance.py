"""What the step at a level change lacks, for a data set and for a network, and what adding it would repair.

    python -m ssd.analysis.missing_variance --data digits --res 16 --levels 2 --channels 1 --switches '[344]'
    python -m ssd.analysis.missing_variance --data digits --res 16 --levels 3 --channels 1 --model runs/digits

For every change of the schedule prints m(t), the largest missing variance over that of the noise, and the share of the
variance of x_s given x_t that is missing (`ssd.analysis.missing_covariance`): for Gaussian images of the data's
covariance, and with --model for its errors on these images. Then how far a sampler ends from the data, in closed form
with a perfect network, when the missing covariance is added at the changes: not at all, by bands of frequencies (as
`ssd.evaluation.calibrate` keeps them), by every frequency, with a few directions beside, and whole. Ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..commands.drawing import pyplot, save_figure
from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.files import write_json
from ..commands.output_paths import check_output_folder
from ..commands.parser import CommandParser
from ..process.noise import NoiseSchedule, make_betas
from ..process.resolution import ResolutionSchedule
from ..process.scale_space import ScaleSpaceProcess
from ..process.spacing import SPACINGS
from .covariance_models import by_band, by_frequency, low_rank_and_by_frequency
from .gaussian_data import residual_covariance
from .information.rules import LARGEST_MISSING
from .information.statistics import ImageStatistics, image_statistics, level_operators
from .measured_errors import OpenedModel, error_covariance, open_model
from .measured_images import MeasuredImages
from .missing_covariance import MissingVariance, missing_variance
from .reverse_chain import Sampler, chain_distance

SAMPLERS = {"ancestral, 50 steps": (1, "change", "linspace", 50), "second order, 20 steps": (2, "null", "logsnr", 20)}
"""Name -> order, where the covariance is added, spacing, steps. Second order repairs the row space itself."""


@dataclass(frozen=True, kw_only=True)
class MissingVarianceConfig(MeasuredImages):
    """Settings of the study.

    Parameters
    ----------
    switches : list of int, optional
        The first timestep of every coarser level. The default is convex_decay(0.5), and with --model the model's.
    model : str, optional
        The folder of a pipeline with these levels, to be measured on the same images.
    num_denoised : int
        The number of images that the model is measured on, at least 2. Fewer than pixels overstate m(t).
    rank : int
        The number of directions that are kept beside the frequencies, at least 1.
    out : str, optional
        A folder for missing_variance.json and missing_variance.png. Without it the tables alone are printed.
    """

    switches: list[int] | None = None
    model: str | None = None
    num_denoised: int = 1024
    rank: int = 16
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("num_denoised", 2), ("rank", 1)):
            if getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")
        if math.prod(self.sizes[0]) > LARGEST_MISSING:
            raise UsageError(
                f"--res must be of at most {LARGEST_MISSING} pixels, got {self.res}: time grows with their third power."
            )
        if self.model and self.switches:
            raise UsageError("--switches and --model do not go together: a model has its own switches.")

    @property
    def process(self) -> ScaleSpaceProcess:
        """The paper's, with the switches."""
        noise, sizes = NoiseSchedule.from_betas(make_betas()), self.sizes
        if self.switches is None:
            resolution = ResolutionSchedule.from_curve(sizes, noise.num_timesteps)
        else:
            resolution = ResolutionSchedule.from_switches(sizes, noise.num_timesteps, self.switches)
        return ScaleSpaceProcess(noise, resolution, self.downsample_kernel)


def repairs(process: ScaleSpaceProcess, statistics: ImageStatistics, rank: int) -> dict[str, dict[str, float]]:
    """Squared Frechet distances from the data, sampler by sampler, for every form of the added covariance."""
    covariance = statistics.covariance
    assert covariance is not None, "small images alone"
    forms: dict[str, Any] = {
        "as it is": "none",
        "bands": by_band,
        "frequencies": by_frequency,
        f"{rank} directions": partial(low_rank_and_by_frequency, rank=rank),
        "whole": None,
    }
    found: dict[str, dict[str, float]] = {}
    todo = [(name, form) for name in SAMPLERS for form in forms]
    for name, form in tqdm(todo, desc="chains", unit=" chains", delay=2):
        order, where, spacing, steps = SAMPLERS[name]
        model = forms[form]
        sampler = Sampler(1.0, order) if model == "none" else Sampler(1.0, order, where, model)
        distance = chain_distance(process, covariance, SPACINGS[spacing](process, steps), sampler)
        found.setdefault(name, {})[form] = distance
    return found


def format_changes(process: ScaleSpaceProcess, gaussian: list[MissingVariance], network: list[MissingVariance]) -> str:
    """A line per change, for people."""
    lines = [f"{'change':>20} {'t':>5} {'m(t)':>8} {'share':>7}" + ("   the network's" if network else "")]
    for index, found in enumerate(gaussian):
        (h, w), (height, width) = process.size(found.t), process.size(found.t - 1)
        line = f"{f'{h} x {w} to {height} x {width}':>20} {found.t:5d} {found.largest:8.3f} {found.share:7.1%}"
        if network:
            line += f" {network[index].largest:8.3f} {network[index].share:7.1%}"
        lines.append(line)
    return "\n".join(lines)


def format_repairs(found: dict[str, dict[str, float]]) -> str:
    """A line per sampler, for people."""
    forms = list(next(iter(found.values())))
    lines = [f"{'added at the changes:':24}" + "".join(f" {form:>15}" for form in forms)]
    return "\n".join(
        [*lines, *(f"{name:24}" + "".join(f" {row[form]:15.4g}" for form in forms) for name, row in found.items())]
    )


def draw(gaussian: list[MissingVariance], network: list[MissingVariance], found: dict[str, dict[str, float]]) -> Any:
    """The spectra of what is missing, and what adding it repairs."""
    figure, axes = pyplot().subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    for style, label, kind in (("-", "Gaussian", gaussian), ("--", "network", network)):
        for index, change in enumerate(kind):
            axes[0].plot(
                range(1, len(change.spectrum) + 1),
                change.spectrum,
                style,
                color=f"C{index}",
                label=f"t = {change.t}, {label}",
            )
    axes[0].set(xscale="log", yscale="log", ylim=(1e-4, None), xlabel="direction", ylabel="missing variance / noise")
    axes[0].set_title("what the step at a change lacks")
    for name, row in found.items():
        axes[1].plot(list(row), list(row.values()), "o-", label=name)
    axes[1].set(ylabel="Frechet distance, Gaussian images", title="added at the changes", ylim=(0, None))
    for axis in axes:
        axis.legend(fontsize="small")
        axis.grid(alpha=0.3)
    return figure


def study(config: MissingVarianceConfig, statistics: ImageStatistics, opened: OpenedModel | None) -> list[str]:
    """Compute, write, and say what to print."""
    process, covariance = opened[0].process if opened else config.process, statistics.covariance
    assert covariance is not None, "small images alone"
    changes = process.required_timesteps
    gaussian = [missing_variance(process, residual_covariance(process, covariance, t - 1, t), t) for t in changes]
    network = (
        [missing_variance(process, error_covariance(*opened, t, config.seed), t) for t in changes] if opened else []
    )
    found = repairs(process, statistics, config.rank)
    lines = [format_changes(process, gaussian, network), "", format_repairs(found)]
    if config.out:
        out = Path(config.out)
        content = {"gaussian": [vars(change) for change in gaussian], "network": [vars(change) for change in network]}
        write_json(out / "missing_variance.json", content | {"distances": found})
        save_figure(draw(gaussian, network, found), out / "missing_variance.png")
        lines += [f"wrote {out / name}" for name in ("missing_variance.json", "missing_variance.png")]
    return lines


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.analysis.missing_variance", description=__doc__)
        parser.add_class_arguments(MissingVarianceConfig)
        config = MissingVarianceConfig(**parser.parse_args(arguments).as_dict())
        if config.out:
            check_output_folder(config.out, "--out")
            pyplot()
        _ = config.process  # switches that do not fit are told now
        steps, dataset = config.steps, config.open()
        opened = open_model(config.model, config.num_denoised, config) if config.model else None
    with exit_on_usage_error():
        statistics = image_statistics(config.images(dataset), level_operators(steps))
        for line in study(config, statistics, opened):
            print(line)  # noqa: T201


if __name__ == "__main__":
    main()
