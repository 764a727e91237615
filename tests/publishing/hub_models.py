"""Small pipelines of every kind that a self-contained folder can hold, and how each is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DiffusionPipeline, UNet2DModel

from flexi_unet import FlexiUNet2DModel, ResizedUNet2DModel
from ssd import BlurringScheduler, CorrectiveNoiseScheduler, SSDPipeline, SSDScheduler, VDVAEPipeline
from vdvae import VDVAEModel

BLOCKS = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")}
SETTINGS = {"block_out_channels": (32, 32), "layers_per_block": 1}
FIRST_ORDER = {"solver_order": 1, "timestep_spacing": "linspace"}


def flexi(**settings: Any) -> FlexiUNet2DModel:
    return FlexiUNet2DModel(16, **{**SETTINGS, **settings})


KINDS: dict[str, Callable[[], DiffusionPipeline]] = {
    "levels": lambda: SSDPipeline(flexi(), SSDScheduler(sample_size=16, num_levels=2)),
    "three_levels_first_order": lambda: SSDPipeline(
        flexi(block_out_channels=(32, 32, 32)), SSDScheduler(sample_size=16, num_levels=3, **FIRST_ORDER)
    ),
    "classes": lambda: SSDPipeline(
        flexi(num_class_embeds=3, id2label={0: "cat", 1: "dog"}, no_class_label=2),
        SSDScheduler(sample_size=16, num_levels=2),
    ),
    "one_level": lambda: SSDPipeline(UNet2DModel(16, **SETTINGS, **BLOCKS), SSDScheduler(sample_size=16, num_levels=1)),
    "resized": lambda: SSDPipeline(
        ResizedUNet2DModel(16, **SETTINGS, **BLOCKS), SSDScheduler(sample_size=16, num_levels=2)
    ),
    "blurring": lambda: SSDPipeline(flexi(), BlurringScheduler(sample_size=16)),
    "corrective": lambda: SSDPipeline(flexi(), CorrectiveNoiseScheduler(sample_size=16, num_levels=2)),
    "vdvae": lambda: VDVAEPipeline(
        VDVAEModel(8, 1, "8x1,8d2,4x1", "4x1,8m4", width=8, latent_channels=2, num_mixtures=2)
    ),
}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "classes": {"class_labels": [0, 1], "guidance_scale": 2.0, "num_inference_steps": 6},
    "vdvae": {"temperature": 0.8},
}


def build(kind: str) -> DiffusionPipeline:
    """A pipeline with reproducible random weights."""
    torch.manual_seed(0)
    pipeline = KINDS[kind]()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def arguments(kind: str) -> dict[str, Any]:
    """How this kind is called, but for the generators."""
    return ARGUMENTS.get(kind, {"num_inference_steps": 6})


def draw(pipeline: DiffusionPipeline, kind: str) -> torch.Tensor:
    """Two images of it."""
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    return pipeline(2, generator=generators, output_type="pt", **arguments(kind)).images
