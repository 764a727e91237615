"""Pipelines in folders: what is loaded is what was saved."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from ssd import SSDPipeline
from ssd.commands.errors import UsageError
from ssd.publishing import saving
from ssd.publishing.saving import load_pipeline, load_unet, save_pipeline


def test_a_saved_pipeline_loads_without_a_warning(pipeline: SSDPipeline, tmp_path: Path, recwarn) -> None:
    save_pipeline(pipeline, tmp_path, card="# Mine")
    names = ["README.md", "model_index.json", "pipeline.json", "scheduler", "unet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
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


def marked(pipeline: SSDPipeline, mark: float) -> SSDPipeline:
    """The pipeline with a number in its weights and in its scheduler."""
    with torch.no_grad():
        pipeline.unet.conv_out.bias.fill_(mark)
    pipeline.scheduler.register_to_config(clip_sample_range=1.0 + mark)
    return pipeline


def mark_of(pipeline: SSDPipeline) -> float:
    """The number of a pipeline, which must be whole."""
    mark = float(pipeline.unet.conv_out.bias.detach()[0])
    assert pipeline.scheduler.config.clip_sample_range == 1.0 + mark
    return mark


STEPS = {os: ["replace", "link", "mkdir", "unlink"], shutil: ["rmtree", "copytree"]}
"""What changes names in a folder."""


def save_and_die(pipeline: SSDPipeline, out: Path, step: int) -> bool:
    """Save in a forked process that is gone before its change of names number `step`; whether it ended before."""
    child = os.fork()
    if child == 0:
        counted = [0]

        def dying(function):
            def run(*arguments, **settings):
                counted[0] += 1
                if counted[0] > step:
                    os._exit(1)
                return function(*arguments, **settings)

            return run

        for module, names in STEPS.items():
            for name in names:
                setattr(module, name, dying(getattr(module, name)))
        save_pipeline(pipeline, out, card=f"{mark_of(pipeline)}")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_pipeline(
    pipeline: SSDPipeline, tmp_path: Path, stride: int
) -> None:
    new = []
    for step in range(0, 100, stride):
        save_pipeline(marked(pipeline, 2.0 * step), tmp_path, card="old")  # completes what the last kill left
        assert mark_of(load_pipeline(str(tmp_path), "cpu")) == 2.0 * step
        assert (tmp_path / "README.md").read_text() == "old"
        assert not (tmp_path / saving.STAGED).exists()
        ended = save_and_die(marked(pipeline, 2.0 * step + 1), tmp_path, step)
        mark = mark_of(SSDPipeline.from_pretrained(tmp_path))
        assert float(load_unet(tmp_path).conv_out.bias.detach()[0]) == mark
        new.append(mark - 2.0 * step)
        if ended:
            break
    assert ended
    assert new == sorted(new)
    assert min(new.count(0.0), new.count(1.0)) > 5 // stride


def test_a_file_system_without_links(pipeline: SSDPipeline, tmp_path: Path, monkeypatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    save_pipeline(marked(pipeline, 1.0), tmp_path)
    assert mark_of(load_pipeline(str(tmp_path), "cpu")) == 1.0


@pytest.mark.parametrize("error", [SafetensorError("No space left on device (os error 28)"), OSError(errno.ENOSPC, "")])
def test_a_full_disk_leaves_the_earlier_pipeline(error, pipeline: SSDPipeline, tmp_path: Path, monkeypatch) -> None:
    save_pipeline(marked(pipeline, 1.0), tmp_path, card="1.0")

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pipeline.unet, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left") as raised:
        save_pipeline(marked(pipeline, 2.0), tmp_path, card="2.0")
    assert raised.value.filename == f"the pipeline in {tmp_path}"
    assert mark_of(load_pipeline(str(tmp_path), "cpu")) == 1.0
    assert (tmp_path / "README.md").read_text() == "1.0"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
