"""What the evaluation's tests share: a small model, a reference, one whole evaluation, Inception weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.evaluation.features.inception import fid_inception
from ssd.publishing.saving import save_pipeline

from ..conftest import run_script

EVAL = "sample/eval_fid.py"
QUICK = ["--steps", "3", "--metrics", "fid,swd", "--device", "cpu", "--features", "pixels"]
SAME_REPORT = ("metrics", "protocol", "samples", "neighbours", "warnings", "versions")


def save_model(folder: Path, **options: object) -> Path:
    torch.manual_seed(0)
    unet = FlexiUNet2DModel(16, block_out_channels=(32, 32), layers_per_block=1, **options)
    for parameter in unet.parameters():  # the output's convolution starts at zero: all images would be grey
        nn.init.normal_(parameter, std=0.1)
    SSDPipeline(unet, SSDScheduler(sample_size=16, num_levels=2)).save_pretrained(folder)
    return folder


def save_grey_model(folder: Path, channels: int = 1) -> Path:
    """An untrained pipeline of images of 16 x 8 (height x width)."""
    torch.manual_seed(0)
    unet = FlexiUNet2DModel(
        sample_size=(16, 8), in_channels=channels, out_channels=channels, block_out_channels=(32, 32)
    )
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.1)
    save_pipeline(SSDPipeline(unet, SSDScheduler(sample_size=(16, 8), num_levels=2)), folder)
    return folder


@pytest.fixture(scope="session")
def grey_model(tmp_path_factory) -> Path:
    """Grey and not square."""
    return save_grey_model(tmp_path_factory.mktemp("grey") / "m")


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """An untrained pipeline: what the command says of its images matters here, not the images."""
    return save_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="session")
def reference(tmp_path_factory) -> str:
    """A data set of 50 pictures of 20 x 20."""
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (50, 20, 20, 3), dtype=np.uint8))
    return f"npz:{path}"


@pytest.fixture(scope="session")
def everything(model, reference) -> list[str]:
    """Flags of an evaluation of 70 images with all metrics."""
    flags = ["--model", str(model), "--ref", reference, "--num", "70", "--steps", "3", "--features", "pixels"]
    return [*flags, "--metrics", "fid,kid,swd,pr,levels", "--device", "cpu"]


@pytest.fixture(scope="session")
def evaluated(everything, tmp_path_factory) -> Path:
    """That evaluation in one process, in files."""
    out = tmp_path_factory.mktemp("evaluated") / "eval"
    done = run_script(EVAL, *everything, "--out", out)
    assert done.code == 0, done.err
    return out


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve PNG files of 16 x 16."""
    made = tmp_path / "pictures"
    made.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(made / f"{i:06d}.png")
    return made


def read_report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def assert_same_report(one: Path, other: Path) -> None:
    a, b = read_report(one), read_report(other)
    for part in SAME_REPORT:
        assert a[part] == b[part], part


@pytest.fixture(scope="session")
def random_inception() -> nn.Module:
    """The real architecture with random weights: the real ones are not available where these tests were written."""
    torch.manual_seed(0)
    network = fid_inception().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # torch's default shrinks the features of all images to one vector
            nn.init.kaiming_normal_(module.weight)
    return network


@pytest.fixture(scope="session")
def inception_weights(random_inception, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "pt_inception.pth"
    torch.save(random_inception.state_dict(), path)
    return path
