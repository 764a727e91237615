"""Seconds per image against GFLOPs as resolution and number of levels grow, with a plot.

python benchmarks/scaling.py
python benchmarks/scaling.py --plot benchmarks/scaling.png --steps 12
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from measuring import DEVICE, random_weights, read_settings, seconds

from flexi_unet import FlexiUNet2DModel
from flexi_unet.flops import count_gflops
from ssd import SSDPipeline, SSDScheduler
from ssd.commands.drawing import pyplot
from ssd.commands.errors import exit_on_usage_error

MULTIPLES = {32: (1, 2, 4), 64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4)}
"""Stage widths in units of `base`, the paper's."""


@dataclass
class ScalingBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    base : int
        Width of the finest stage.
    steps : int
        Sampling steps.
    pixels : int
        Pixels per call at full resolution; 65536 are 16 images of 64 pixels.
    plot : str, optional
        Write a PNG; needs matplotlib.
    """

    base: int = 32
    steps: int = 12
    pixels: int = 2**16
    plot: str | None = None


def main() -> None:
    with exit_on_usage_error(ValueError):
        settings = read_settings(ScalingBenchmark, __doc__)
        rows = measure(settings)
    print(table(rows))
    if settings.plot:
        draw(rows, Path(settings.plot))


def measure(settings: ScalingBenchmark) -> list[tuple[int, int, float, float]]:
    """(resolution, levels, GFLOPs per image, seconds per image), every setting timed once after a warm-up."""
    rows = []
    for res, multiples in MULTIPLES.items():
        unet = FlexiUNet2DModel(res, block_out_channels=tuple(settings.base * multiple for multiple in multiples))
        random_weights(unet).eval().to(DEVICE)
        for levels in range(1, len(multiples) + 1):
            scheduler = SSDScheduler(sample_size=res, num_levels=levels)
            pipeline = SSDPipeline(unet, scheduler)
            pipeline.set_progress_bar_config(disable=True)
            scheduler.set_timesteps(settings.steps)
            pairs = [(t, scheduler.previous_timestep(t)) for t in scheduler.timesteps.tolist()]
            gflops = sum(count_gflops(unet, scheduler.size_at(t), scheduler.size_at(s)) for t, s in pairs)
            batch = max(1, settings.pixels // res**2)
            sample = partial(pipeline, batch, output_type="pt", max_batch_size_per_level=batch)
            sample(num_inference_steps=levels)
            rows.append((res, levels, gflops, seconds(partial(sample, num_inference_steps=settings.steps)) / batch))
    return rows


def table(rows: list[tuple[int, int, float, float]]) -> str:
    """Markdown."""
    lines = ["| resolution | levels | GFLOPs per image | seconds per image | GFLOPs per second |", "|" + "---|" * 5]
    lines += [f"| {res} | {n} | {gflops:.1f} | {time:.3f} | {gflops / time:.0f} |" for res, n, gflops, time in rows]
    return "\n".join(lines)


def draw(rows: list[tuple[int, int, float, float]], path: Path) -> None:
    """Seconds against GFLOPs, one line per resolution, and the line of constant throughput."""
    figure, axis = pyplot().subplots(figsize=(5.5, 4), layout="constrained")
    for res in MULTIPLES:
        points = [(gflops, time) for r, _, gflops, time in rows if r == res]
        axis.plot(*zip(*points), marker="o", label=f"{res} pixels")
    largest = max(rows, key=lambda row: row[2])
    ends = [min(row[2] for row in rows), largest[2]]
    axis.plot(ends, [end * largest[3] / largest[2] for end in ends], "k--", linewidth=1, label="constant throughput")
    axis.set(xscale="log", yscale="log", xlabel="GFLOPs per image", ylabel="seconds per image")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
