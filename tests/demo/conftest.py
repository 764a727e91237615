"""Tiny models for the page: with random weights, so that their pictures are noise, but each step is the real one."""

from __future__ import annotations

import pytest
import torch

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.demo import frames
from ssd.demo.model import DemoModel


def tiny_pipeline(channels: int = 1, num_levels: int = 3, **settings) -> SSDPipeline:
    """16 x 16 pixels, three levels."""
    torch.manual_seed(0)
    shape = {"block_out_channels": (16, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
    unet = FlexiUNet2DModel(16, in_channels=channels, out_channels=channels, **(shape | settings))
    for parameter in unet.parameters():
        if parameter.abs().max() == 0:  # the last layer begins with zeros
            torch.nn.init.normal_(parameter, std=0.05)
    pipe = SSDPipeline(unet.eval(), SSDScheduler(sample_size=16, num_levels=num_levels))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def model(monkeypatch) -> DemoModel:
    """Grey, without classes; frames come as fast as they are made."""
    monkeypatch.setattr(frames, "SECONDS_PER_FRAME", 0.01)
    return DemoModel("runs/x", tiny_pipeline())


@pytest.fixture
def classes(monkeypatch) -> DemoModel:
    """In colour, with three classes that have names."""
    monkeypatch.setattr(frames, "SECONDS_PER_FRAME", 0.01)
    names = {0: "cat", 1: "dog", 2: "owl"}
    return DemoModel("runs/c", tiny_pipeline(3, num_class_embeds=4, id2label=names))
