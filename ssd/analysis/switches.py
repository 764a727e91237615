"""A resolution schedule from data: where the noise covers what the next level cannot hold.

    python -m ssd.analysis.switches --data digits --res 16 --levels 2
    python -m ssd.analysis.switches --data folder:/data/faces --res 64 --levels 4 --theta 0.02

Prints v, the variance of the images' finest details, the switches that follow from it (`ssd.process.switches`), and the
cost of a network's step beside those of convex_decay(0.5) and equal. `train_ssd.py --switches` takes the switches, and
`--resolution_schedule data` measures them itself. Ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.parser import CommandParser
from ..data import ImageStream
from ..data.dataset import ImageDataset
from ..data.some_images import some_images
from ..operators.linear import LinearOperator
from ..process.noise import NoiseSchedule, make_betas
from ..process.resolution import ResolutionSchedule
from ..process.switches import mean_cost, switches_of_variance
from .measured_images import MeasuredImages

CURVES = (("convex_decay", 0.5), ("equal", 1.0))


@dataclass(frozen=True, kw_only=True)
class SwitchesConfig(MeasuredImages):
    """Settings of the measurement.

    Parameters
    ----------
    theta : float
        The signal-to-noise ratio that the finest details may have when they are dropped. Less keeps them longer.
    """

    theta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.theta > 0:
            raise UsageError(f"--theta must be positive, got {self.theta}.")


@dataclass(frozen=True)
class DetailVariance:
    """What `detail_variance` found.

    Attributes
    ----------
    variance : float
        v.
    num_images : int
        How many images it was averaged over.
    """

    variance: float
    num_images: int


def detail_variance(images: Iterable[torch.Tensor], downsample: LinearOperator) -> DetailVariance:
    """The variance of images in the null space of an operator, per dimension of the null space.

        v = mean over images and channels of |(I - P) (x - m)|^2 / dim null(D)

    m is the mean of the images, per pixel and channel; P is the orthogonal projection on the row space of D.

    Parameters
    ----------
    images : iterable of torch.Tensor
        (C, H, W) each, in [-1, 1]; at least one.
    downsample : LinearOperator
        D, from (H, W) to the next level.

    Examples
    --------
    >>> from ssd.operators.resize import resize_operator
    >>> noise = torch.randn(500, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> round(detail_variance(noise, resize_operator((8, 8), (4, 4))).variance, 1)  # white: the same in every direction
    1.0
    """
    projection = downsample.spectral.covariance(lambda lam: (lam > 0).to(lam.dtype))
    dimensions = downsample.in_size[0] * downsample.in_size[1] * (1 - float(projection.mean_variance()))
    count, total, squares = 0, torch.zeros(()), 0.0
    for image in images:
        pixels = image.to(torch.float64)
        detail = pixels - projection.apply(pixels)
        count, total, squares = count + 1, total + detail, squares + float(detail.square().sum())
    spread = squares / count - float((total / count).square().sum())  # E |r|^2 - |E r|^2 for r = (I - P) x
    return DetailVariance(max(0.0, spread) / (len(total) * dimensions), count)


def measure(
    dataset: ImageDataset | ImageStream, downsample: LinearOperator, num: int, seed: int, silent: bool = False
) -> DetailVariance:
    """`detail_variance` of `some_images`, with a progress bar where it takes long."""
    total = min(num, dataset.count or num)
    with tqdm(some_images(dataset, num, seed), "details", total, unit=" images", delay=2, disable=silent) as images:
        return detail_variance(images, downsample)


def compare(config: SwitchesConfig, variance: float) -> list[tuple[str, ResolutionSchedule]]:
    """The schedule of the data and those that know nothing of them, by name."""
    noise, sizes = NoiseSchedule.from_betas(make_betas()), config.sizes
    switches = switches_of_variance(noise, variance, config.levels, config.theta)
    schedules = [(f"data, theta {config.theta:g}", ResolutionSchedule.from_switches(sizes, len(noise.snr), switches))]
    for name, gamma in CURVES:
        label = f"{name}({gamma:g})" if name == "convex_decay" else name
        schedules.append((label, ResolutionSchedule.from_curve(sizes, len(noise.snr), name, gamma)))
    return schedules


def format_table(schedules: Sequence[tuple[str, ResolutionSchedule]]) -> str:
    """One line per schedule: its switches, and the pixels per step relative to one level."""
    rows = [(name, str(list(schedule.level_starts[1:])), mean_cost(schedule)) for name, schedule in schedules]
    width = max(8, *(len(switches) for _, switches, _ in rows))
    lines = [f"{'schedule':20} {'switches':{width}} {'cost':>6}"]
    return "\n".join([*lines, *(f"{name:20} {switches:{width}} {cost:6.3f}" for name, switches, cost in rows)])


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.analysis.switches", description=__doc__)
        parser.add_class_arguments(SwitchesConfig)
        config = SwitchesConfig(**parser.parse_args(arguments).as_dict())
        downsample, dataset = config.steps[0], config.open()
    with exit_on_usage_error():
        found = measure(dataset, downsample, config.num, config.seed)
    with exit_on_usage_error(ValueError):
        schedules = compare(config, found.variance)
    counted = f"{found.num_images} of {dataset.count}" if dataset.count else str(found.num_images)
    print(f"v = {found.variance:.4g}, the variance of the finest details, from {counted} images")  # noqa: T201
    print(format_table(schedules))  # noqa: T201


if __name__ == "__main__":
    main()
