"""Import time of ssd against diffusers and torch alone, each in a new process.

python benchmarks/imports.py
"""

from __future__ import annotations

import subprocess
import sys

from measuring import Row, paired, table


def main() -> None:
    print(table(measure()))


def measure(pairs: int = 5) -> list[Row]:
    return [
        compare("import ssd", "import diffusers; import torch", pairs, limit=0.3),
        compare("from ssd import SSDPipeline", "from diffusers import DDPMPipeline, UNet2DModel", pairs),
    ]


def compare(ours: str, theirs: str, pairs: int, limit: float | None = None) -> Row:
    """Seconds of our import / theirs; the target is a number of seconds on top of theirs."""
    ratio, one, other = paired(lambda: run(ours), lambda: run(theirs), pairs)
    note = f"{one:.2f} s, {other:.2f} s: {one - other:+.2f} s"
    if limit is None:
        return Row(ours, theirs, ratio, note=note)
    return Row(ours, theirs, ratio, f"<= {1 + limit / other:.3g}", f"{note}, aim {limit:+.1f} s")


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    main()
