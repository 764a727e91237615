"""Where the time of every route goes: shares of the operations, by torch.profiler.

python benchmarks/profile_routes.py
python benchmarks/profile_routes.py --base 128 --batch_size 32

On a GPU the shares are of the device's time, and `waiting` is how much longer the clock on the wall ran.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from measuring import DEVICE, four_stages, median_seconds, read_settings
from torch.profiler import ProfilerActivity, profile
from train_step import step

from flexi_unet.flops import count_gflops
from ssd.commands.errors import exit_on_usage_error

GROUPS = {
    "convolution": ("convolution", "conv2d", "cudnn"),
    "attention": ("scaled_dot_product", "flash", "fmha"),
    "matrix products": ("aten::mm", "addmm", "bmm"),
    "group norm": ("group_norm",),
    "SiLU": ("silu",),
    "copies": ("copy_", "cat", "pad", "clone", "fill_"),
    "sums": ("aten::add", "aten::sum"),
}
"""Parts of operators' names, by what they are to a reader; the first that fits counts."""


@dataclass
class ProfileBenchmark:
    """Settings of the profile.

    Parameters
    ----------
    res : int
        Full resolution.
    batch_size : int
        Images per call.
    base : int
        Width of the finest stage; the others are 2, 3 and 4 times wider.
    repeats : int
        Calls that are profiled.
    """

    res: int = 64
    batch_size: int = 16
    base: int = 32
    repeats: int = 3


@dataclass
class RouteProfile:
    """One line of the table: milliseconds of a call, GFLOPs per second, and shares in percent by group."""

    name: str
    milliseconds: float
    speed: float
    shares: dict[str, float]


def main() -> None:
    with exit_on_usage_error(ValueError):
        settings = read_settings(ProfileBenchmark, __doc__)
        profiles = measure(settings)
    print(table(profiles))


def measure(settings: ProfileBenchmark) -> list[RouteProfile]:
    unet = four_stages(settings.res, settings.base)
    sizes = [size for size, _ in unet.stage_sizes]
    routes = [(size, size) for size in sizes] + [(small, large) for large, small in pairwise(sizes)]
    profiles = []
    for size, output_size in routes:
        x, t = torch.randn(settings.batch_size, 3, size, size, device=DEVICE), torch.tensor([500], device=DEVICE)
        cost = settings.batch_size * count_gflops(unet, (size, size), (output_size, output_size))

        def forward(x: torch.Tensor = x, t: torch.Tensor = t, output_size: int = output_size) -> None:
            with torch.inference_mode():
                unet(x, t, output_size=output_size)

        name = f"{size}" if size == output_size else f"{size} -> {output_size}"
        profiles.append(profile_call(f"sampling, {name}", forward, cost, settings.repeats))
        if size == output_size:
            train = step(unet, size, settings.batch_size)
            profiles.append(profile_call(f"training, {name}", train, 3 * cost, settings.repeats))
    return profiles


def profile_call(name: str, call: Callable[[], None], gflops: float, repeats: int) -> RouteProfile:
    """Profile one call; `gflops` is its cost."""
    elapsed = median_seconds(call, repeats)
    activities = [ProfilerActivity.CUDA] if DEVICE == "cuda" else [ProfilerActivity.CPU]
    with warnings.catch_warnings(), profile(activities=activities) as recorded:
        for _ in range(repeats):
            call()
    times: dict[str, float] = defaultdict(float)
    for event in recorded.key_averages():
        time = event.self_device_time_total if DEVICE == "cuda" else event.self_cpu_time_total
        times[group_of(event.key)] += time / repeats / 1e6
    total = sum(times.values())
    if DEVICE == "cuda":
        times["waiting"] = max(0.0, elapsed - total)
        total = max(total, elapsed)
    return RouteProfile(name, 1e3 * elapsed, gflops / elapsed, {key: 100 * t / total for key, t in times.items()})


def group_of(operator: str) -> str:
    """What an operator is to a reader."""
    found = (group for group, parts in GROUPS.items() if any(part in operator for part in parts))
    return next(found, "other")


def table(profiles: list[RouteProfile]) -> str:
    """Markdown."""
    groups = [*GROUPS, "other", *(["waiting"] if DEVICE == "cuda" else [])]
    lines = [
        "| route | ms | GFLOPs per second | " + " | ".join(f"{group} %" for group in groups) + " |",
        "|" + "---|" * (3 + len(groups)),
    ]
    for one in profiles:
        shares = " | ".join(f"{one.shares.get(group, 0):.0f}" for group in groups)
        lines.append(f"| {one.name} | {one.milliseconds:.1f} | {one.speed:.0f} | {shares} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
