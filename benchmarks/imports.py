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
    ratio, ours, theirs = paired(lambda: run("import ssd"), lambda: run("import diffusers; import torch"), pairs)
    note = f"{ours:.2f} s, {theirs:.2f} s: + {ours - theirs:.2f} s (aim: + 0.3 s)"
    return [Row("import ssd", "import diffusers; import torch", ratio, note=note)]


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    main()
