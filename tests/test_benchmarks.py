"""Every benchmark runs, on settings too small to mean anything."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SETTINGS = {
    "sampler": ("--levels 2 --steps 10 --batch_size 2 --pairs 1 --base 32 --res 16", "| pipeline, 16 pixels, 2 levels"),
    "train_step": ("--res 16 --base 32 --batch_size 1 --pairs 1", "| peak of PyTorch"),
    "network": ("--res 16 --base 32 --batch_size 1 --pairs 1", "| 50 sampling steps as they are"),
    "presets": ("--presets ['64x2']", "| training time, 64 pixels, 2 levels | 1 level"),
    "architectures": ("--resolutions [16] --levels [2] --base 32 --pairs 1", "| training step, 16 pixels, 2 levels |"),
    "profile_routes": ("--res 16 --base 32 --batch_size 1 --repeats 1", "| sampling, 2 -> 4 |"),
    "batch_sizes": ("--res 16 --base 32 --largest 1 --repeats 1", "| pixels | batch 1 | batch 4 | batch 16 |"),
    "scaling": ("--base 32 --steps 6 --pixels 1024", "| 256 | 6 |"),
    "imports": ("", "| import ssd | import diffusers; import torch |"),
    "frechet": ("--features 64", "| Frechet distance at 64 features"),
    "quality": (
        "--data digits --res 16 --minutes 0.02,0.03 --levels 1,2 --num 8 --steps 3 --block_out_channels [32,32]",
        "| 2 | 0.03 |",
    ),
}
"""Flags, and a part of what is printed. `loader` and `flops` have tests of their own."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_benchmark(name: str) -> None:
    flags, expected = SETTINGS[name]
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *flags.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_no_benchmark_is_forgotten() -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert scripts - {"measuring", "run", "loader", "flops", "gradient_averaging"} == set(SETTINGS)
    page = (ROOT / "docs" / "performance.md").read_text()
    assert [name for name in scripts - {"measuring"} if f"benchmarks/{name}.py" not in page] == []
