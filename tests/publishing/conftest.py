"""Fixtures: a published checkpoint, the command that converts it, and a small pipeline of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.publishing.convert import main
from ssd.publishing.published_checkpoints import build_unet, convert_weights

from ..conftest import ROOT

GOLDEN = ROOT / "tests" / "golden"
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def published() -> Weights:
    """A published state dict: 32 pixels, widths 32, 64, 64; float16 values."""
    return load_file(GOLDEN / "flexi_unet_32_3l.safetensors")


@pytest.fixture(scope="module")
def unet(published: Weights) -> FlexiUNet2DModel:
    return build_unet(*convert_weights(published))


@pytest.fixture
def checkpoint(published: Weights, tmp_path: Path) -> Path:
    """The published file as its authors write it."""
    path = tmp_path / "ema_0.9999_300000.pt"
    torch.save({"model": published, "step": 300000}, path)
    return path


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command on a file (or on weights to be saved first); return its one line of error."""

    def run(content: Path | Weights, *arguments: str, out: Path = tmp_path / "out") -> str:
        path = content if isinstance(content, Path) else tmp_path / "weights.pt"
        if not isinstance(content, Path):
            torch.save(content, path)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stop:
            main([str(path), "--levels", "3", "--out", str(out), *arguments])
        captured = capsys.readouterr()
        assert stop.value.code == 2
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert captured.err.endswith("\n")
        assert sorted(tmp_path.rglob("*")) == before  # nothing was written
        return captured.err

    return run


@pytest.fixture
def pipeline() -> SSDPipeline:
    """Two levels of 16 and 8 pixels, random weights."""
    unet = FlexiUNet2DModel(16, block_out_channels=(32, 32), layers_per_block=1)
    return SSDPipeline(unet, SSDScheduler(sample_size=16, num_levels=2))
