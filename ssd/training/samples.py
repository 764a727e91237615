"""Grids of samples during training, always from the same noise, drawn by all processes together."""

from __future__ import annotations

import copy
import math
from pathlib import Path

from accelerate import Accelerator
from diffusers.models.modeling_utils import ModelMixin

from ..commands.files import whole_file
from ..pipeline_ssd import SSDPipeline
from ..pipelines.guidance import number_of_classes
from ..sampling.pictures import image_grid
from ..schedulers.base import ProcessScheduler
from ..seeding import torch_generator
from .config import TrainConfig

NUM_SAMPLES = 64


def save_sample_grid(
    config: TrainConfig, accelerator: Accelerator, unet: ModelMixin, scheduler: ProcessScheduler, path: Path
) -> None:
    """Draw 64 images and write them as one picture; `unet` is in evaluation mode afterwards."""
    unet.eval()
    pipeline = SSDPipeline(unet, copy.deepcopy(scheduler))
    pipeline.set_progress_bar_config(desc="sampling", leave=False, disable=not accelerator.is_main_process)
    share = math.ceil(NUM_SAMPLES / accelerator.num_processes)
    mine = range(accelerator.process_index * share, (accelerator.process_index + 1) * share)
    classes = number_of_classes(unet)
    (images,) = pipeline(
        share,
        num_inference_steps=config.sample_steps and max(config.sample_steps, len(scheduler.resolutions)),
        generator=[torch_generator(config.seed, "samples", i) for i in mine],
        class_labels=[i % classes for i in mine] if classes else None,
        output_type="latent",
        return_dict=False,
    )
    images = accelerator.gather(images.to(accelerator.device))[:NUM_SAMPLES]
    if accelerator.is_main_process:
        with whole_file(path) as temporary:
            image_grid(images).save(temporary)
