"""The paper's tables of cost: GFLOPs of every row, and speed by levels and steps, beside what the paper prints.

Table 4, Flexi-UNet beside the full U-Net, is benchmarks/architectures.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from tqdm.auto import tqdm

import ssd
from flexi_unet import FlexiUNet2DModel

from ..commands.errors import UsageError
from ..pipelines.samplers import SAMPLERS
from ..schedulers.base import ProcessScheduler
from ..scheduling_corrective_noise import CorrectiveNoiseScheduler
from ..scheduling_ssd import SSDScheduler
from .cost import median_seconds, paper_network, preset_gflops, seconds_per_image

CONFIGS = Path(ssd.__file__).parent.parent / "configs"
PRINTED_GFLOPS = {
    "celeba64_ddpm_eps": 60.05,
    "celeba64_2l": 50.61,
    "celeba64_3l": 44.27,
    "celeba64_4l": 38.48,
    "celeba128_ddpm_eps": 132.30,
    "celeba128_3l": 87.38,
    "celeba128_5l": 66.72,
    "celeba256_ddpm_eps": 497.03,
    "celeba256_3l": 317.36,
    "celeba256_4l": 272.98,
    "celeba256_5l": 237.70,
    "celeba256_6l": 209.69,
}
"""Table 2 of the paper."""
MORE_PRESETS = (
    "celeba64_2l_full_unet",
    "celeba64_4l_full_unet",
    "celeba64_2l_corrective_noise",
    "celeba64_4l_corrective_noise",
    "celeba32_ddpm_eps",
    "celeba32_5l",
    "celeba32_gradual",
)
"""Of tables 4, 10 and 11, where the paper prints no GFLOPs."""

PRINTED_SPEEDS: dict[tuple[int, int, float], float] = {
    (1, 1000, 1.0): 1.00,
    (1, 250, 1.0): 4.18,
    (1, 25, 0.0): 38.87,
    (2, 1000, 1.0): 1.18,
    (2, 250, 1.0): 4.80,
    (4, 1000, 1.0): 1.58,
    (4, 250, 1.0): 5.91,
}
"""Table 7 of the paper, by levels, steps and eta: speed over DDPM-x0 with 1000 steps, at 64 pixels."""
PRINTED_MINUTES = {2: (15.52, 14.98), 4: (13.32, 11.20)}
"""Table 11 of the paper, by levels at 64 pixels: minutes per 256 images of corrective noise and of SSD."""


@dataclass
class TablesConfig:
    """Print the paper's tables of cost.

    Parameters
    ----------
    base : int
        The width of the network that is timed; the paper's is 128. GFLOPs are always the paper's.
    steps : int
        How many steps stand for the paper's 1000 in the timings: a multiple of 40, up to 1000; others are scaled alike.
    batch : int
        Images that are drawn together.
    repeats : int
        Measurements of every row, of which the median counts.
    timing : bool
        Measure seconds, too.
    """

    base: int = 32
    steps: int = 200
    batch: int = 4
    repeats: int = 3
    timing: bool = True

    def __post_init__(self) -> None:
        if self.base < 32 or self.base % 32:
            raise UsageError(f"--base must be a multiple of 32, got {self.base}.")
        if not 40 <= self.steps <= 1000 or self.steps % 40:
            raise UsageError(f"--steps must be a multiple of 40 in 40..1000, got {self.steps}.")
        for name in ("batch", "repeats"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} must be at least 1, got {getattr(self, name)}.")


def show_tables(config: TablesConfig) -> None:
    """Print all of them, as Markdown."""
    print(gflops_table())  # noqa: T201
    if config.timing:
        for text in (steps_table(config), corrective_table(config)):
            print(f"\n{text}")  # noqa: T201


def gflops_table() -> str:
    """Table 2, and the rows of tables 4, 10 and 11: GFLOPs per image and step, averaged over the timesteps."""
    if not CONFIGS.is_dir():
        raise UsageError(f"The presets are not in {CONFIGS}: run it from a clone of the repository.")
    lines = ["| preset | GFLOPs per step | without attention's products | paper |", "|---|---|---|---|"]
    for name in tqdm([*PRINTED_GFLOPS, *MORE_PRESETS], desc="GFLOPs", unit=" presets"):
        total, without_products = preset_gflops(CONFIGS / f"{name}.yaml")
        printed = f"{PRINTED_GFLOPS[name]:.2f}" if name in PRINTED_GFLOPS else "-"
        lines.append(f"| `{name}` | {total:.2f} | {without_products:.2f} | {printed} |")
    return "\n".join(lines)


def steps_table(config: TablesConfig) -> str:
    """Table 7, speed by levels and steps: ratios to one level (the plain U-Net) with all steps, in one run."""

    def measure(levels: int, steps: int, eta: float) -> Callable[[], float]:
        scheduler = SSDScheduler(sample_size=64, num_levels=levels, **SAMPLERS["paper"])
        number = max(steps * config.steps // 1000, levels)
        return lambda: seconds_per_image(
            _network(64, levels, config.base), scheduler, _chain(scheduler, number), eta, config.batch
        )

    seconds = median_seconds({row: measure(*row) for row in PRINTED_SPEEDS}, config.repeats, "steps")
    lines = [
        f"Speed at 64 pixels, base width {config.base}, {config.steps} steps for the paper's 1000.",
        "",
        "| levels | steps | seconds per image | speed | paper |",
        "|---|---|---|---|---|",
    ]
    whole = next(iter(seconds.values()))
    for (levels, steps, eta), spent in seconds.items():
        sampler = f"{steps}" if eta else f"{steps}, DDIM"
        speed = f"{whole / spent:.2f} x | {PRINTED_SPEEDS[levels, steps, eta]:.2f} x"
        lines.append(f"| {levels} | {sampler} | {spent:.3f} | {speed} |")
    return "\n".join(lines)


def corrective_table(config: TablesConfig) -> str:
    """Table 11: seconds of corrective noise (equal schedule) over those of scale space diffusion (convex_decay)."""

    def measure(process: str, levels: int) -> Callable[[], float]:
        scheduler: ProcessScheduler = SSDScheduler(sample_size=64, num_levels=levels, **SAMPLERS["paper"])
        number = config.steps
        if process == "corrective":
            scheduler = CorrectiveNoiseScheduler(sample_size=64, num_levels=levels, resolution_schedule="equal")
            number = round(config.steps * len(scheduler) / 1000)  # the steps that are made twice come on top
        chain, unet = _chain(scheduler, number), (64, levels, config.base)
        return lambda: seconds_per_image(_network(*unet), scheduler, chain, 1.0, config.batch)

    rows = {(process, levels): measure(process, levels) for levels in PRINTED_MINUTES for process in ("corrective", "")}
    seconds = median_seconds(rows, config.repeats, "corrective noise")
    lines = [
        f"Corrective noise beside scale space diffusion at 64 pixels, base width {config.base}, {config.steps} steps.",
        "",
        "| levels | corrective noise, seconds per image | scale space | ratio | paper |",
        "|---|---|---|---|---|",
    ]
    for levels, (theirs, ours) in PRINTED_MINUTES.items():
        corrective, scale_space = seconds["corrective", levels], seconds["", levels]
        ratios = f"{corrective / scale_space:.2f} | {theirs / ours:.2f}"
        lines.append(f"| {levels} | {corrective:.3f} | {scale_space:.3f} | {ratios} |")
    return "\n".join(lines)


def _chain(scheduler: ProcessScheduler, number: int) -> list[int]:
    scheduler.set_timesteps(number)
    return [int(t) for t in scheduler.timesteps]


@cache
def _network(res: int, levels: int, base: int) -> FlexiUNet2DModel:
    """The paper's network for so many levels; for one it is the plain U-Net, whose finest stage runs its last block."""
    return _with_weights(paper_network(res, "full" if levels == 1 else "early", base))


def _with_weights(network: FlexiUNet2DModel) -> FlexiUNet2DModel:
    """The network with memory, and random weights that hide no zeros."""
    made = network.to_empty(device="cpu").eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return made
