"""Images per second of one network call against the number of images in it, at every level.

python benchmarks/batch_sizes.py
python benchmarks/batch_sizes.py --base 128 --largest 512
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from measuring import DEVICE, four_stages, median_seconds, read_settings

from ssd.commands.errors import exit_on_usage_error


@dataclass
class BatchSizesBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    res : int
        Full resolution.
    base : int
        Width of the finest stage; the others are 2, 3 and 4 times wider.
    largest : int
        Largest number of images at full resolution; every coarser level goes on to four times more.
    repeats : int
        Calls per figure; the median counts.
    """

    res: int = 64
    base: int = 32
    largest: int = 64
    repeats: int = 3


def main() -> None:
    with exit_on_usage_error(ValueError):
        settings = read_settings(BatchSizesBenchmark, __doc__)
        rows = measure(settings)
    print(table(rows))


def measure(settings: BatchSizesBenchmark) -> dict[int, dict[int, float]]:
    """Images per second: {pixels: {batch: speed}}."""
    unet = four_stages(settings.res, settings.base)
    t = torch.tensor([500], device=DEVICE)
    speeds: dict[int, dict[int, float]] = {}
    for level, (size, _) in enumerate(unet.stage_sizes):
        speeds[size] = {}
        batch = 1
        while batch <= min(settings.largest * 4**level, 16 * settings.largest):
            x = torch.randn(batch, 3, size, size, device=DEVICE)
            with torch.inference_mode():
                speeds[size][batch] = batch / median_seconds(partial(unet.forward, x, t), settings.repeats)
            batch *= 4
    return speeds


def table(speeds: dict[int, dict[int, float]]) -> str:
    """Markdown; the best of every level in bold."""
    batches = sorted({batch for row in speeds.values() for batch in row})
    lines = [
        "| pixels | " + " | ".join(f"batch {batch}" for batch in batches) + " |",
        "|" + "---|" * (len(batches) + 1),
    ]
    for size, row in speeds.items():
        best = max(row.values())
        cells = [f"**{row[b]:.0f}**" if row.get(b) == best else f"{row[b]:.0f}" if b in row else "" for b in batches]
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
