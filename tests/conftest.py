"""Fixtures of all tests: commands run in this process, so that errors are cheap to test."""

from __future__ import annotations

import io
import logging
import runpy
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parent.parent

TINY = [
    *("--res", "16", "--levels", "2", "--block_out_channels", "[32,32]", "--layers_per_block", "1"),
    *(
        "--global_batch_size",
        "4",
        "--num_workers",
        "0",
        "--sample_every",
        "0",
        "--log_every",
        "1",
        "--cpu_threads",
        "1",
    ),
]
"""Flags of a network that trains a step in milliseconds."""


@dataclass
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    def assert_one_line_error(self, *parts: str) -> None:
        """Exit code 2 and one line on standard error that holds every one of `parts`."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert self.code == 2, self.err
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        for part in parts:
            assert part in lines[0], lines[0]


def run_script(script: str, *arguments: str | Path) -> Outcome:
    """Run a script of the project as `python SCRIPT ARGUMENTS`, in this process."""
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    out, err = io.StringIO(), io.StringIO()
    level, threads, argv = logging.getLogger("diffusers").level, torch.get_num_threads(), sys.argv
    try:
        sys.argv = [script, *map(str, arguments)]
        with redirect_stdout(out), redirect_stderr(err):
            runpy.run_path(str(ROOT / script), run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = argv
        torch.set_num_threads(threads)
        logging.getLogger("diffusers").setLevel(level)
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture
def run_command() -> Callable[..., Outcome]:
    """`run_script`, for tests."""
    return run_script


@pytest.fixture
def image_folder(tmp_path) -> Path:
    """A folder with six pictures of several sizes, formats and modes, one in a subfolder."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, (name, mode) in enumerate(
        [("a.png", "RGB"), ("b.jpg", "RGB"), ("c.png", "L"), ("d.webp", "RGB"), ("e.png", "RGBA"), ("more/f.PNG", "P")]
    ):
        pixels = rng.integers(0, 256, (20 + 8 * i, 40 - 3 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / name)
    (folder / ".hidden").write_text("not shown")
    return folder
