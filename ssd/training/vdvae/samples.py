"""Grids of samples of VDVAE during training, always from the same noise, drawn by all processes together."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator

from vdvae import VDVAEModel

from ...pipeline_vdvae import VDVAEPipeline
from ...seeding import torch_generator
from ..samples import own_samples, write_grid


def save_vdvae_grid(model: VDVAEModel, accelerator: Accelerator, seed: int, temperature: float, path: Path) -> None:
    """Draw 64 images at a temperature and write them as one picture; `model` is in evaluation mode afterwards."""
    model.eval()
    mine = own_samples(accelerator)
    (images,) = VDVAEPipeline(model)(
        len(mine),
        temperature=temperature,
        generator=[torch_generator(seed, "samples", i) for i in mine],
        output_type="latent",
        return_dict=False,
    )
    write_grid(accelerator, images, path)
