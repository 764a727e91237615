"""Run the CPU set of benchmarks and write benchmarks/results.md and results.json. Takes a few minutes.

python benchmarks/run.py
"""

from __future__ import annotations

from pathlib import Path

import imports
import sampler
import scaling
import train_step
from measuring import machine, table, write_json
from tqdm.auto import tqdm

FOLDER = Path(__file__).parent


def main() -> None:
    parts = {
        "import": imports.measure,
        "sampler": lambda: sampler.measure(sampler.SamplerBenchmark()),
        "training step": lambda: train_step.measure(train_step.TrainStepBenchmark()),
    }
    rows = []
    progress = tqdm(parts.items(), desc="benchmarks")
    for name, measure in progress:
        progress.set_postfix_str(name)
        rows += measure()
    sizes = scaling.measure(scaling.ScalingBenchmark())
    scaling.draw(sizes, FOLDER / "scaling.png")
    facts = "\n".join(f"- {name}: {value}" for name, value in machine().items())
    text = f"""# Results

Written by `python benchmarks/run.py`. Every ratio is the median of alternating measurements in one run.

{facts}

{table(rows)}

## Cost as work grows

{scaling.table(sizes)}

![Seconds per image against GFLOPs per image](scaling.png)
"""
    (FOLDER / "results.md").write_text(text)
    write_json(rows, FOLDER / "results.json")
    print(text)


if __name__ == "__main__":
    main()
