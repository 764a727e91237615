"""The paper's tables of cost: GFLOPs of every row, and speed by levels and steps, beside what the paper prints.

Table 4, Flexi-UNet beside the full U-Net, is benchmarks/architectures.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

import ssd
from flexi_unet import FlexiUNet2DModel

from ..commands.errors import UsageError
from ..scheduling_ssd import SSDScheduler
from .cost import paper_network, preset_gflops, seconds_per_image

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

PRINTED_SPEEDS: dict[tuple[str, int, float], float] = {
    ("1 level", 1000, 1.0): 1.00,
    ("1 level", 250, 1.0): 4.18,
    ("1 level", 25, 0.0): 38.87,
    ("2 levels", 1000, 1.0): 1.18,
    ("2 levels", 250, 1.0): 4.80,
    ("4 levels", 1000, 1.0): 1.58,
    ("4 levels", 250, 1.0): 5.91,
}
"""Table 7 of the paper: speed over DDPM-x0 with 1000 steps."""


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
    timing : bool
        Measure seconds, too.
    """

    base: int = 32
    steps: int = 200
    batch: int = 4
    timing: bool = True

    def __post_init__(self) -> None:
        if self.base < 32 or self.base % 32:
            raise UsageError(f"--base must be a multiple of 32, got {self.base}.")
        if not 40 <= self.steps <= 1000 or self.steps % 40:
            raise UsageError(f"--steps must be a multiple of 40 in 40..1000, got {self.steps}.")
        if self.batch < 1:
            raise UsageError(f"--batch must be at least 1, got {self.batch}.")


def show_tables(config: TablesConfig) -> None:
    """Print all of them, as Markdown."""
    print(gflops_table())  # noqa: T201
    if config.timing:
        print(f"\n{steps_table(config)}")  # noqa: T201


def gflops_table() -> str:
    """Table 2, and the rows of tables 4, 10 and 11: GFLOPs per image and step, averaged over the timesteps."""
    if not CONFIGS.is_dir():
        raise UsageError(f"The presets are not in {CONFIGS}: run it from a clone of the repository.")
    lines = ["| preset | GFLOPs per step | paper | ratio |", "|---|---|---|---|"]
    for name in tqdm([*PRINTED_GFLOPS, *MORE_PRESETS], desc="GFLOPs", unit=" presets"):
        found, printed = preset_gflops(CONFIGS / f"{name}.yaml"), PRINTED_GFLOPS.get(name)
        beside = "- | -" if printed is None else f"{printed:.2f} | {found / printed:.3f}"
        lines.append(f"| `{name}` | {found:.2f} | {beside} |")
    return "\n".join(lines)


def steps_table(config: TablesConfig) -> str:
    """Table 7, speed by levels and steps: ratios to one level with all steps, in one run."""
    rows, seconds = list(PRINTED_SPEEDS), {}
    for row in tqdm(rows, desc="steps", unit=" rows"):
        name, steps, eta = row
        scheduler = SSDScheduler(sample_size=64, num_levels=int(name.split()[0]))
        unet = _with_weights(paper_network(64, base=config.base))
        number = max(steps * config.steps // 1000, len(scheduler.resolutions))
        seconds[row] = seconds_per_image(unet, scheduler, _chain(scheduler, number), eta, config.batch)
    lines = [
        f"Speed at 64 pixels, base width {config.base}, {config.steps} steps for the paper's 1000.",
        "",
        "| model | steps | seconds per image | speed | paper |",
        "|---|---|---|---|---|",
    ]
    for (name, steps, eta), spent in seconds.items():
        sampler = f"{steps}" if eta else f"{steps}, DDIM"
        speed = f"{seconds[rows[0]] / spent:.2f} x | {PRINTED_SPEEDS[name, steps, eta]:.2f} x"
        lines.append(f"| {name} | {sampler} | {spent:.3f} | {speed} |")
    return "\n".join(lines)


def _chain(scheduler: SSDScheduler, number: int) -> list[int]:
    scheduler.set_timesteps(number)
    return [int(t) for t in scheduler.timesteps]


def _with_weights(network: FlexiUNet2DModel) -> FlexiUNet2DModel:
    """The network with memory, and random weights that hide no zeros."""
    made = network.to_empty(device="cpu").eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return made
