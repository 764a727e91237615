"""Flexi-UNet against the full U-Net of the same widths, which resizes every image to the full resolution: GFLOPs,
sampling and training, as means over all timesteps (arXiv:2603.08709, table 4).

python benchmarks/architectures.py
python benchmarks/architectures.py --resolutions [64] --levels [2,4] --base 128 --batch_size 32
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from measuring import DEVICE, Row, full_unet, random_weights, read_settings, seconds, table
from presets import count_routes
from scaling import MULTIPLES
from torch import nn
from train_step import step

from flexi_unet import FlexiUNet2DModel, Network
from flexi_unet.flops import count_gflops
from ssd import SSDScheduler
from ssd.commands.errors import exit_on_usage_error
from ssd.operators.sizes import Size

Routes = dict[tuple[Size, Size], float]
"""(input size, output size) -> its share of the timesteps."""

PAPER_SECONDS = {(64, 2): (15.38, 16.19), (64, 4): (13.43, 16.28), (256, 2): (38.99, 43.07), (256, 4): (31.08, 34.74)}
"""Seconds per sampled image by (resolution, levels): of Flexi-UNet and of the full U-Net, table 4."""


@dataclass
class ArchitecturesBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    resolutions : list of int
        Full resolutions.
    levels : list of int
        Numbers of levels.
    base : int
        Width of the finest stage; the others are multiples of it, the paper's with 128.
    batch_size : int
        Images per call.
    pairs : int
        Alternating measurements of every route; the median ratio is reported.
    """

    resolutions: list[int] = field(default_factory=lambda: [64, 256])
    levels: list[int] = field(default_factory=lambda: [2, 4])
    base: int = 32
    batch_size: int = 1
    pairs: int = 3


def main() -> None:
    with exit_on_usage_error(ValueError):
        settings = read_settings(ArchitecturesBenchmark, __doc__)
        rows = measure(settings)
    print(table(rows))


def measure(settings: ArchitecturesBenchmark) -> list[Row]:
    return [row for res in settings.resolutions for levels in settings.levels for row in compare(res, levels, settings)]


def compare(res: int, levels: int, settings: ArchitecturesBenchmark) -> list[Row]:
    """Flexi-UNet / the full U-Net: GFLOPs, a sampling step, a training step."""
    widths = tuple(settings.base * multiple for multiple in MULTIPLES.get(res, (1,) * levels))
    flexi = FlexiUNet2DModel(res, block_out_channels=widths)
    full = full_unet(flexi)
    for network in (flexi, full):
        random_weights(network).to(DEVICE)
    counts = count_routes(SSDScheduler(sample_size=res, num_levels=levels))
    routes = {route: count / sum(counts.values()) for route, count in counts.items()}
    where = f"{res} pixels, {levels} levels"
    one, other = mean_gflops(flexi, routes), mean_gflops(full, routes)
    rows = [Row(f"GFLOPs, {where}", "the full U-Net", one / other, note=f"{one:.2f}, {other:.2f}")]

    paper = PAPER_SECONDS.get((res, levels))
    theirs = f"; the paper's seconds per image: {paper[0] / paper[1]:.2f} x" if paper else ""
    for name, work, more in (("sampling step", sampling_step, theirs), ("training step", training_step, "")):
        ratio, one, other = paired_means(flexi, full, routes, work, settings)
        note = f"{1e3 * one:.1f} ms, {1e3 * other:.1f} ms per image{more}"
        rows.append(Row(f"{name}, {where}", "the full U-Net", ratio, note=note))
    return rows


def mean_gflops(network: Network, routes: Routes) -> float:
    """GFLOPs per image and call, averaged over the timesteps."""
    return sum(share * count_gflops(network, *route) for route, share in routes.items())


def sampling_step(network: nn.Module, route: tuple[Size, Size], batch_size: int) -> Callable[[], None]:
    """One call in inference mode."""
    x, t = torch.randn(batch_size, 3, *route[0], device=DEVICE), torch.tensor([500], device=DEVICE)

    def run() -> None:
        with torch.inference_mode():
            network(x, t, output_size=route[1])

    return run


def training_step(network: nn.Module, route: tuple[Size, Size], batch_size: int) -> Callable[[], None]:
    """Forward and backward pass."""
    return step(network, route[0][0], batch_size, output_size=route[1])


def paired_means(
    one: nn.Module,
    other: nn.Module,
    routes: Routes,
    work: Callable[[nn.Module, tuple[Size, Size], int], Callable[[], None]],
    settings: ArchitecturesBenchmark,
) -> tuple[float, float, float]:
    """Median of one / other over rounds of all routes, after a warm-up; median seconds per image of both."""
    runs = [{route: work(network, route, settings.batch_size) for route in routes} for network in (one, other)]
    rounds = []
    for _ in range(1 + settings.pairs):
        times = {route: [seconds(run[route]) for run in runs] for route in routes}
        rounds.append([sum(share * times[route][i] for route, share in routes.items()) for i in (0, 1)])
    del rounds[0]  # the warm-up
    ratio = statistics.median(first / second for first, second in rounds)
    first, second = (statistics.median(means) / settings.batch_size for means in zip(*rounds))
    return ratio, first, second


if __name__ == "__main__":
    main()
