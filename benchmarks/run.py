"""Run the benchmarks of this machine's device and write benchmarks/results.md, results.json and scaling.png.

    python benchmarks/run.py

Under ten minutes on two CPU cores. Left to themselves: learning.py (it trains), architectures.py, loader.py
and gradient_averaging.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import batch_sizes
import frechet
import imports
import network
import presets
import profile_routes
import sampler
import scaling
import train_step
from measuring import Row, machine, table, write_json
from tqdm.auto import tqdm

FOLDER = Path(__file__).parent

RATIOS: dict[str, Callable[[], list[Row]]] = {
    "Sampler": lambda: sampler.measure(sampler.SamplerBenchmark()),
    "Training step": lambda: train_step.measure(train_step.TrainStepBenchmark()),
    "Network": lambda: network.measure(network.NetworkBenchmark()),
    "Presets": lambda: presets.measure(presets.PresetsBenchmark()),
    "Import": imports.measure,
    "Frechet distance": lambda: frechet.measure(frechet.FrechetBenchmark()),
}


def main() -> None:
    progress = tqdm(total=len(RATIOS) + 3, desc="benchmarks")

    def done(name: str) -> None:
        progress.set_postfix_str(f"{name} done")
        progress.update()

    sections, rows = [], []
    for name, measure in RATIOS.items():
        found = measure()
        rows += found
        sections.append(f"## {name}\n\n{table(found)}")
        done(name)
    profiles = profile_routes.measure(profile_routes.ProfileBenchmark())
    done("profile")
    speeds = batch_sizes.measure(batch_sizes.BatchSizesBenchmark())
    done("batch sizes")
    sizes = scaling.measure(scaling.ScalingBenchmark())
    scaling.draw(sizes, FOLDER / "scaling.png")
    done("scaling")
    progress.close()

    ratios = "\n\n".join(sections)
    facts = "\n".join(f"- {name}: {value}" for name, value in machine().items())
    text = f"""# Results

Written by `make bench` (`python benchmarks/run.py`). Every ratio is the median of alternating measurements in one run.

{facts}

{ratios}

## Where the time goes

Milliseconds of one call, and shares of the operations, at 64 pixels with widths 32, 64, 96, 128 and batch 16.

{profile_routes.table(profiles)}

## Images per second against images per call

{batch_sizes.table(speeds)}

## Cost as work grows

{scaling.table(sizes)}

![Seconds per image against GFLOPs per image](scaling.png)
"""
    (FOLDER / "results.md").write_text(text)
    write_json(rows, FOLDER / "results.json")
    print(text)


if __name__ == "__main__":
    main()
