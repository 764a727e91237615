"""GFLOPs per image of Flexi-UNet, averaged over all timesteps, beside those of a plain U-Net and of the paper.

    python benchmarks/flops.py
    python benchmarks/flops.py --res 256 --levels 5
    python benchmarks/flops.py --res 128 --levels 5 --schedule equal --gamma 1

A multiply-add counts as two. Nothing is computed: PyTorch counts on the meta device. Columns:

    ours         mean over the timesteps of the resolution schedule
    full size    one step at full resolution, which is every step of a model of one level
    plain U-Net  the same network, whose finest decoder stage also runs its last block (decoder_exit "full"): the
                 finest stage of Flexi-UNet leaves that block out, which saves 12.5 % at 256 pixels without any levels
    paper        what arXiv:2603.08709 prints; its DDPM row (1 level) is the plain U-Net
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from flexi_unet import FlexiUNet2DModel
from flexi_unet.flops import count_gflops
from ssd.commands.errors import UsageError, exit_on_usage_error
from ssd.commands.parser import CommandParser
from ssd.operators.sizes import Size
from ssd.training.build import CHANNEL_MULTIPLIERS, build_scheduler, build_unet
from ssd.training.config import TrainConfig

PRESETS: dict[int, tuple[int, ...]] = {64: (1, 2, 4), 128: (1, 3, 5), 256: (1, 3, 4, 6)}
"""Numbers of levels that the table shows, by full resolution."""

PAPER_SCHEDULE = ("convex_decay", 0.5)
PAPER_GFLOPS = {(256, 1): 497.0, (256, 4): 273.0, (256, 6): 209.7}
"""Printed averages by (resolution, levels); one level is the paper's DDPM."""


@dataclass(frozen=True)
class FlopsConfig:
    """Settings of the table.

    Parameters
    ----------
    res : int, optional
        Full resolution in pixels. Default: 64, 128 and 256.
    levels : int, optional
        Number of resolutions; needs --res. Default: those of the table without arguments.
    schedule : str
        Resolution schedule: equal, convex_decay, sigmoid_like or tanh_like.
    gamma : float
        Shape of the resolution schedule, positive.
    """

    res: int | None = None
    levels: int | None = None
    schedule: Literal["equal", "convex_decay", "sigmoid_like", "tanh_like"] = "convex_decay"
    gamma: float = 0.5

    def settings(self) -> list[tuple[int, int]]:
        """The rows of the table: (resolution, levels)."""
        if self.levels is not None and self.res is None:
            raise UsageError(f"--levels {self.levels} needs a resolution: give --res too.")
        if self.res is None:
            return [(res, levels) for res, numbers in PRESETS.items() for levels in numbers]
        if self.levels is not None:
            return [(self.res, self.levels)]
        if self.res not in PRESETS:
            known = ", ".join(map(str, PRESETS))
            raise UsageError(
                f"--res {self.res} has no default number of levels (only {known} have): give --levels too."
            )
        return [(self.res, levels) for levels in PRESETS[self.res]]


@dataclass(frozen=True)
class FlopsRow:
    """GFLOPs of one setting: the mean over timesteps, a step at full size, a plain U-Net, and the paper's figure."""

    res: int
    levels: int
    average: float
    full_size: float
    plain_unet: float
    paper: float | None


def measure(res: int, levels: int, schedule: str = "convex_decay", gamma: float = 0.5) -> FlopsRow:
    """Count one row of the table; a `UsageError` or `ValueError` names what cannot be built."""
    if res not in CHANNEL_MULTIPLIERS:
        raise UsageError(f"--res must be one of {', '.join(map(str, CHANNEL_MULTIPLIERS))}, got {res}.")
    if gamma <= 0:
        raise UsageError(f"--gamma must be positive, got {gamma}.")
    resolution = build_scheduler(
        _config(res, levels=levels, resolution_schedule=schedule, resolution_gamma=gamma)
    ).process.resolution
    num_timesteps = len(resolution.levels)
    routes = Counter((resolution.size(t), resolution.size(t - 1)) for t in range(num_timesteps))
    average = sum(count * route_gflops(res, "early", *route) for route, count in routes.items()) / num_timesteps
    full = (res, res)
    return FlopsRow(
        res,
        levels,
        average,
        full_size=route_gflops(res, "early", full, full),
        plain_unet=route_gflops(res, "full", full, full),
        paper=PAPER_GFLOPS.get((res, levels)) if (schedule, gamma) == PAPER_SCHEDULE else None,
    )


@cache
def route_gflops(res: int, decoder_exit: str, input_size: Size, output_size: Size) -> float:
    """GFLOPs of one image from `input_size` to `output_size`, counted once."""
    return count_gflops(_network(res, decoder_exit), input_size, output_size)


@cache
def _network(res: int, decoder_exit: str) -> FlexiUNet2DModel:
    with torch.device("meta"):
        return build_unet(_config(res, decoder_exit=decoder_exit))


def _config(res: int, **settings: Any) -> TrainConfig:
    return TrainConfig(res=res, data="digits", out="unused", **settings)  # neither data nor out is touched


def format_table(rows: Sequence[FlopsRow]) -> str:
    """One line per setting, for people."""
    lines = [f"{'res':>4} {'levels':>7} {'ours':>9} {'full size':>10} {'plain U-Net':>12} {'paper':>7}"]
    for row in rows:
        paper = "-" if row.paper is None else f"{row.paper:.1f}"
        lines.append(
            f"{row.res:4d} {row.levels:7d} {row.average:9.1f} {row.full_size:10.1f} {row.plain_unet:12.1f} {paper:>7}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError):
        parser = CommandParser(description=__doc__)
        parser.add_class_arguments(FlopsConfig)
        config = FlopsConfig(**parser.parse_args(arguments).as_dict())
        rows = [measure(res, levels, config.schedule, config.gamma) for res, levels in config.settings()]
    print(format_table(rows))


if __name__ == "__main__":
    main()
