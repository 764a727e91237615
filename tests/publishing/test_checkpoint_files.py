"""Checkpoint files of unknown origin: what is read, and every bad file is one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ssd.publishing.checkpoint_files import read_checkpoint

from .conftest import Weights


def test_step_and_tensors_are_read(checkpoint: Path, published: Weights) -> None:
    weights, step = read_checkpoint(checkpoint)
    assert step == 300000
    assert weights.keys() == published.keys()


def test_missing_file(tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "does not exist" in fails(tmp_path / "none.pt")
    assert "folder" in fails(tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.9])
def test_truncated_file(checkpoint: Path, fails: Callable[..., str], keep: float) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(keep * len(content))])
    message = fails(checkpoint)
    assert "damaged" in message
    assert checkpoint.name in message


def test_truncated_safetensors(tmp_path: Path, fails: Callable[..., str]) -> None:
    path = tmp_path / "short.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-10])
    assert "damaged" in fails(path)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"hello", b"version https://git-lfs"])
def test_no_checkpoint_at_all(tmp_path: Path, fails: Callable[..., str], content: bytes) -> None:
    path = tmp_path / "page.pt"
    path.write_bytes(content)
    assert "not a checkpoint" in fails(path)


class RunsCode:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_with_code_is_refused(tmp_path: Path, fails: Callable[..., str], new_format: bool) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    content = {"model": {"a": torch.zeros(1)}, "step": RunsCode(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    message = fails(path)
    assert "could run code" in message
    assert "torch.save(" in message
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the file does what the test says
    assert trace.exists()


@pytest.mark.parametrize("content", [[1, 2], {"model": 3}, {"state": {}, "param_groups": []}, torch.zeros(3)])
def test_content_that_is_not_a_state_dict(tmp_path: Path, fails: Callable[..., str], content: object) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    assert "does not hold a state dict" in fails(path)
