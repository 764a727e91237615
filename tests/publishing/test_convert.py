"""The command that converts a published checkpoint: a pipeline that samples, its model card, one line per mistake."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline
from ssd.publishing.convert import main

from .conftest import GOLDEN, Weights
from .published_networks import published_shapes


def test_command_end_to_end(
    checkpoint: Path, unet: FlexiUNet2DModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models" / "celeba"
    process = ("--resolution_schedule", "equal", "--resolution_gamma", "2")
    main([str(checkpoint), "--levels", "2", "--out", str(out), *process])
    captured = capsys.readouterr()
    assert captured.err == ""
    assert str(out) in captured.out
    assert not [path for path in out.rglob("*") if path.suffix in (".bin", ".pt", ".tmp")]

    pipeline = SSDPipeline.from_pretrained(out)
    assert pipeline.scheduler.resolutions == [(32, 32), (16, 16)]
    assert pipeline.scheduler.config.resolution_schedule == "equal"
    assert pipeline.scheduler.config.resolution_gamma == 2
    for name, tensor in unet.state_dict().items():
        assert torch.equal(pipeline.unet.state_dict()[name], tensor), name
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(1, num_inference_steps=2, output_type="pt").images.shape == (1, 3, 32, 32)

    card = (out / "README.md").read_text()
    for text in (
        checkpoint.name,
        hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "300000",
        "32, 64, 64",
        "2 levels",
        "equal, gamma 2",
        f'from_pretrained("{out}")',
        "licence of their source",
    ):
        assert text in card, text


def test_command_on_a_bare_state_dict(published: Weights, tmp_path: Path) -> None:
    path, out = tmp_path / "bare.pt", tmp_path / "out"
    torch.save(published, path)
    out.mkdir()  # an empty folder is welcome
    main([str(path), "--levels", "3", "--out", str(out)])
    assert SSDPipeline.from_pretrained(out).scheduler.config.resolution_schedule == "convex_decay"
    assert "not in the file" in (out / "README.md").read_text()


def test_command_on_safetensors(tmp_path: Path) -> None:
    out = tmp_path / "out"
    main([str(GOLDEN / "flexi_unet_32_3l.safetensors"), "--levels", "1", "--out", str(out)])
    assert SSDPipeline.from_pretrained(out).scheduler.resolutions == [(32, 32)]


def test_command_on_a_class_conditional_network(tmp_path: Path) -> None:
    path, out = tmp_path / "classes.pt", tmp_path / "out"
    shapes = published_shapes(16, (32, 64), classes=10)
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    main([str(path), "--levels", "2", "--out", str(out)])
    config = SSDPipeline.from_pretrained(out).unet.config
    assert (config.num_class_embeds, config.no_class_label) == (10, -1)
    card = (out / "README.md").read_text()
    assert "class_labels=[0, 1, 2, 3]" in card
    assert "keep guidance_scale at 1" in card


@pytest.mark.parametrize("levels", ["4", "0", "-1"])
def test_levels_that_the_network_does_not_have(checkpoint: Path, fails: Callable[..., str], levels: str) -> None:
    assert "1 to 3 levels" in fails(checkpoint, "--levels", levels)


@pytest.mark.parametrize("heads", ["0", "5"])
def test_heads_that_do_not_fit(checkpoint: Path, fails: Callable[..., str], heads: str) -> None:
    assert "num_attention_heads" in fails(checkpoint, "--num_attention_heads", heads)


def test_learned_variance(published: Weights, fails: Callable[..., str]) -> None:
    six = {"out.2.weight": torch.zeros(6, 32, 3, 3), "out.2.bias": torch.zeros(6)}
    assert "learn_sigma" in fails(published | six)


def test_gamma_must_be_positive(checkpoint: Path, fails: Callable[..., str]) -> None:
    assert "gamma must be positive" in fails(checkpoint, "--resolution_gamma", "0")


def test_out_that_is_not_empty(checkpoint: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    assert "not empty" in fails(checkpoint, out=full)
    assert "is a file" in fails(checkpoint, out=checkpoint)


def test_unknown_flags_and_values(checkpoint: Path, fails: Callable[..., str]) -> None:
    assert "Did you mean 'num_attention_heads'" in fails(checkpoint, "--num_attention_haeds", "4")
    assert "convex_decay" in fails(checkpoint, "--resolution_schedule", "linear")


def test_flags_by_their_former_names(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    former = ("--schedule", "tanh_like", "--gamma", "3", "--heads", "2")
    main([str(checkpoint), "--levels", "2", "--out", str(tmp_path / "out"), *former])
    assert capsys.readouterr().err.splitlines() == [
        "note: --schedule is now called --resolution_schedule.",
        "note: --gamma is now called --resolution_gamma.",
        "note: --heads is now called --num_attention_heads.",
    ]
    pipeline = SSDPipeline.from_pretrained(tmp_path / "out")
    assert pipeline.unet.config.num_attention_heads == 2
    assert pipeline.scheduler.config.resolution_schedule == "tanh_like"
    assert pipeline.scheduler.config.resolution_gamma == 3


def test_errors_as_a_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ssd.publishing.convert", "none.pt", "--levels", "3", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: none.pt does not exist.\n"
    assert not any(tmp_path.iterdir())
