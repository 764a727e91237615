"""The sampler's time against the bare network calls of the same routes, side by side in one run.

python benchmarks/sampler.py
python benchmarks/sampler.py --res 64 --levels 4 --steps 50 --batch_size 16 --repeats 3
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.cli import CommandParser
from ssd.errors import exit_on_usage_error


@dataclass
class SamplerBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    res : int
        Full resolution.
    levels : int
        Number of resolutions, at most 4.
    steps : int
        Sampling steps.
    batch_size : int
        Images per call.
    repeats : int
        Pairs of measurements; the median ratio is reported.
    """

    res: int = 64
    levels: int = 4
    steps: int = 50
    batch_size: int = 16
    repeats: int = 3


def main() -> None:
    with exit_on_usage_error(ValueError):
        parser = CommandParser(description=__doc__)
        parser.add_class_arguments(SamplerBenchmark)
        settings = SamplerBenchmark(**parser.parse_args().as_dict())
        unet = FlexiUNet2DModel(settings.res, block_out_channels=(32, 32, 64, 64)).eval()
        pipeline = SSDPipeline(unet, SSDScheduler(sample_size=settings.res, num_levels=settings.levels))
        pipeline.scheduler.set_timesteps(settings.steps)
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(0)

    ratios = []
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {settings}")
    for _ in range(settings.repeats):
        network = seconds(lambda: bare_network(pipeline, settings.batch_size))
        whole = seconds(lambda: pipeline(settings.batch_size, num_inference_steps=settings.steps, output_type="pt"))
        ratios.append(whole / network)
        print(f"  network {network:7.3f} s   pipeline {whole:7.3f} s   ratio {ratios[-1]:.3f}")
    print(f"pipeline / network, median: {statistics.median(ratios):.3f}")
    print(f"one level change, {settings.batch_size} images: {1e3 * level_change(pipeline, settings.batch_size):.2f} ms")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@torch.no_grad()
def bare_network(pipeline: SSDPipeline, batch_size: int) -> None:
    """The network calls of one sampling run and nothing else."""
    scheduler = pipeline.scheduler
    for t in scheduler.timesteps.tolist():
        sample = torch.zeros(batch_size, 3, *scheduler.size_at(t))
        pipeline.unet(sample, t, scheduler.size_at(scheduler.previous_timestep(t)))


def level_change(pipeline: SSDPipeline, batch_size: int) -> float:
    """Seconds for mean and noise of the finest level change, median of 20."""
    process = pipeline.scheduler.process
    t = process.resolution.level_changes[0] if process.resolution.level_changes else 1
    x_0, x_t = (torch.randn(batch_size, 3, *process.size(i)) for i in (t - 1, t))
    times = [seconds(lambda: process.posterior(x_0, x_t, s=t - 1, t=t).sample()) for _ in range(21)]
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
