"""Training time of the presets with several levels against the same network with one.

python benchmarks/presets.py
python benchmarks/presets.py --batch_size 32 --bf16 --compile      # on a GPU

Seconds per image are averaged over timesteps as training draws them: every route is timed by itself and weighted with
its number of timesteps. Ratios of the paper (arXiv:2603.08709) are of its hours of training.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from measuring import DEVICE, Row, median_seconds, random_weights, read_settings, table

from flexi_unet import FlexiUNet2DModel
from flexi_unet.flops import count_gflops
from ssd import SSDScheduler
from ssd.commands.errors import exit_on_usage_error
from ssd.operators.sizes import Size
from ssd.sampling.compiling import compile_network
from ssd.training.build import build_scheduler, build_unet
from ssd.training.config import TrainConfig

PAPER_RATIOS = {(64, 4): 52.4 / 70.3, (256, 6): 42.9 / 87.3}
"""Hours of training by (resolution, levels), divided by those of one level."""


@dataclass
class PresetsBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    presets : list of str
        RESxLEVELS of CelebA presets.
    batch_size : int
        Images per step at every level.
    bf16 : bool
        bfloat16 autocast.
    compile : bool
        torch.compile the network.
    repeats : int
        Steps per route; the median counts.
    """

    presets: tuple[str, ...] = ("64x4", "128x5", "256x6")
    batch_size: int = 2
    bf16: bool = False
    compile: bool = False
    repeats: int = 1


def main() -> None:
    with exit_on_usage_error(ValueError):
        settings = read_settings(PresetsBenchmark, __doc__)
        rows = measure(settings)
    print(table(rows))


def measure(settings: PresetsBenchmark) -> list[Row]:
    return [compare(preset, settings) for preset in settings.presets]


def compare(preset: str, settings: PresetsBenchmark) -> Row:
    """Time per image with several levels / with one."""
    res, levels = map(int, preset.split("x"))
    config = TrainConfig(res=res, levels=levels, data="digits", out="unused")  # neither data nor out is touched
    unet = build_unet(config)
    random_weights(unet).train().to(DEVICE)
    if settings.compile:
        compile_network(unet)
    timesteps = count_routes(build_scheduler(config))
    full = ((res, res), (res, res))
    seconds = {route: step_seconds(unet, route, settings) for route in timesteps}
    gflops = {route: count_gflops(unet, *route) for route in timesteps}
    total = sum(timesteps.values())
    ratio = sum(count * seconds[route] for route, count in timesteps.items()) / total / seconds[full]
    predicted = sum(count * gflops[route] for route, count in timesteps.items()) / total / gflops[full]
    note = f"GFLOPs predict {predicted:.2f} x; {settings.batch_size / seconds[full]:.3g} images/s with one level"
    if (res, levels) in PAPER_RATIOS:
        note += f"; the paper's hours: {PAPER_RATIOS[res, levels]:.2f} x"
    return Row(f"training time, {res} pixels, {levels} levels", "1 level", ratio, note=note)


def count_routes(scheduler: SSDScheduler) -> dict[tuple[Size, Size], int]:
    """Number of timesteps of every route."""
    return Counter(
        (scheduler.size_at(t), scheduler.size_at(t - 1)) for t in range(scheduler.config.num_train_timesteps)
    )


def step_seconds(unet: FlexiUNet2DModel, route: tuple[Size, Size], settings: PresetsBenchmark) -> float:
    """Median seconds of forward and backward pass."""
    x = torch.randn(settings.batch_size, 3, *route[0], device=DEVICE)
    t = torch.full((settings.batch_size,), 500, device=DEVICE)

    def run() -> None:
        unet.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=settings.bf16):
            prediction = unet(x, t, output_size=route[1]).sample
        prediction.float().square().mean().backward()

    return median_seconds(run, settings.repeats)


if __name__ == "__main__":
    main()
