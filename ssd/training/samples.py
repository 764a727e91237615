"""Grids of samples during training, always from the same noise, drawn by all processes together."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
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
    mine = own_samples(accelerator)
    classes = number_of_classes(unet)
    (images,) = pipeline(
        len(mine),
        num_inference_steps=config.sample_steps and max(config.sample_steps, len(scheduler.resolutions)),
        generator=[torch_generator(config.seed, "samples", i) for i in mine],
        class_labels=[i % classes for i in mine] if classes else None,
        output_type="latent",
        return_dict=False,
    )
    write_grid(accelerator, images, path)


def own_samples(accelerator: Accelerator) -> range:
    """The numbers of the images that this process draws, as many on every process."""
    share = math.ceil(NUM_SAMPLES / accelerator.num_processes)
    return range(accelerator.process_index * share, (accelerator.process_index + 1) * share)


def write_grid(accelerator: Accelerator, images: torch.Tensor, path: Path) -> None:
    """Write the first 64 images of all processes as one picture; `images` are those of this one, in [-1, 1]."""
    images = accelerator.gather(images.to(accelerator.device))[:NUM_SAMPLES]
    if accelerator.is_main_process:
        with whole_file(path) as temporary:
            image_grid(images).save(temporary)
