"""Pipelines in folders: what is loaded is what was saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssd import SSDPipeline
from ssd.commands.errors import UsageError
from ssd.publishing.saving import load_pipeline, save_pipeline


def test_a_saved_pipeline_loads_without_a_warning(pipeline: SSDPipeline, tmp_path: Path, recwarn) -> None:
    save_pipeline(pipeline, tmp_path, card="# Mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "model_index.json", "scheduler", "unet"]
    assert (tmp_path / "README.md").read_text() == "# Mine"
    loaded = load_pipeline(str(tmp_path), "cpu")
    assert not [warning for warning in recwarn if "torch_dtype" in str(warning.message)]
    assert loaded.scheduler.resolutions == pipeline.scheduler.resolutions
    for name, tensor in pipeline.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], tensor), name


def test_saving_again_replaces_what_was_there(pipeline: SSDPipeline, tmp_path: Path) -> None:
    save_pipeline(pipeline, tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "unet" / "old.txt").write_text("of the earlier pipeline")
    save_pipeline(pipeline, tmp_path)
    assert (tmp_path / "mine.txt").exists()
    assert not (tmp_path / "unet" / "old.txt").exists()


@pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated")
def test_weights_in_half_precision(pipeline: SSDPipeline, tmp_path: Path) -> None:
    save_pipeline(pipeline, tmp_path)
    half = load_pipeline(str(tmp_path), "cpu", "bfloat16").unet.state_dict()
    for name, tensor in pipeline.unet.state_dict().items():
        assert torch.equal(half[name], tensor.bfloat16()), name


def test_what_is_not_a_pipeline_is_named(pipeline: SSDPipeline, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a pipeline"):
        load_pipeline(str(tmp_path))
    save_pipeline(pipeline, tmp_path)
    (tmp_path / "unet" / "config.json").unlink()
    with pytest.raises(UsageError, match="cannot be loaded as an SSDPipeline"):
        load_pipeline(str(tmp_path))
    save_pipeline(pipeline, tmp_path)
    with pytest.raises(UsageError, match="--device nowhere cannot be used"):
        load_pipeline(str(tmp_path), "nowhere")
