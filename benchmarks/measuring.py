"""What the benchmarks share: pairs of measurements, rows of a table, the machine they ran on."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

import diffusers
import torch
from torch import nn

from flexi_unet import FlexiUNet2DModel, ResizedUNet2DModel
from ssd.commands.parser import CommandParser
from ssd.training.networks import resized_unet_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class Row:
    """One figure: always a ratio of two things measured in the same run.

    Attributes
    ----------
    what, against : str
        Numerator and denominator.
    ratio : float
        The median over pairs of measurements.
    target : str
        What was aimed at, such as "<= 1.05"; empty for figures that are only reported.
    note : str
        Absolute figures of this machine.
    """

    what: str
    against: str
    ratio: float
    target: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if not self.target:
            return None
        relation, bound = self.target.split()
        return self.ratio <= float(bound) if relation == "<=" else self.ratio >= float(bound)


Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], description: str | None) -> Settings:
    """The dataclass of a benchmark's settings, from the command line."""
    parser = CommandParser(description=description)
    parser.add_class_arguments(kind)
    return kind(**parser.parse_args().as_dict())


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call, with the accelerator's work finished."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def paired(one: Callable[[], object], other: Callable[[], object], pairs: int = 5) -> tuple[float, float, float]:
    """Median of one / other over `pairs` alternating measurements after a warm-up; median seconds of both."""
    one(), other()
    times = [(seconds(one), seconds(other)) for _ in range(pairs)]
    ratio = statistics.median(a / b for a, b in times)
    return ratio, statistics.median(a for a, _ in times), statistics.median(b for _, b in times)


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of one call, after a warm-up."""
    work()
    return statistics.median(seconds(work) for _ in range(repeats))


def four_stages(res: int, base: int, decoder_exit: str = "early") -> FlexiUNet2DModel:
    """A network of four stages with the paper's widths at 64 pixels, there with base 128: 1, 2, 3 and 4 times base."""
    widths = tuple(base * multiple for multiple in (1, 2, 3, 4))
    unet = FlexiUNet2DModel(sample_size=res, block_out_channels=widths, decoder_exit=decoder_exit)
    random_weights(unet).eval().to(DEVICE)
    return unet


def random_weights(network: nn.Module) -> nn.Module:
    """Replace the zero start of residual branches, whose zeros could be cheaper than trained weights."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.abs().max() == 0:
            nn.init.normal_(parameter, std=0.02)
    return network


def full_unet(unet: FlexiUNet2DModel) -> ResizedUNet2DModel:
    """The plain U-Net of the same widths, blocks, heads and attention stages, which resizes to the full resolution."""
    config = unet.config
    return resized_unet_of(
        unet.stage_sizes[0],
        config.block_out_channels,
        layers_per_block=config.layers_per_block,
        attention_resolutions=config.attention_resolutions,
        num_attention_heads=config.num_attention_heads,
        norm_num_groups=config.norm_num_groups,
    )


def same_unet2d(unet: FlexiUNet2DModel) -> diffusers.UNet2DModel:
    """The same as a class of diffusers."""
    settings = {name: value for name, value in full_unet(unet).config.items() if not name.startswith("_")}
    del settings["id2label"], settings["no_class_label"]
    return diffusers.UNet2DModel(**settings)


def machine() -> dict[str, str]:
    """Where and with what a figure was measured."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "date": date.today().isoformat(),
        "processor": f"{_processor()}, {torch.get_num_threads()} threads",
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.processor()


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| what | against | ratio | target | met | measured |", "|---|---|---|---|---|---|"]
    words = {True: "yes", False: "**no**", None: ""}
    for row in rows:
        lines.append(
            f"| {row.what} | {row.against} | {row.ratio:.3g} x | {row.target} | {words[row.met]} | {row.note} |"
        )
    return "\n".join(lines)


def write_json(rows: list[Row], path: Path) -> None:
    """The same rows with the machine, for programs."""
    content = {"machine": machine(), "rows": [asdict(row) | {"met": row.met} for row in rows]}
    path.write_text(json.dumps(content, indent=2) + "\n")
