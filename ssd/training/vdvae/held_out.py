"""The bound of the held-out images during training, with noise of their own that never changes."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator

from vdvae import VDVAEModel

from ...data.dataset import ImageDataset
from ...operators.placing import to_device
from ...pipeline_vdvae import grey_levels, to_grey_levels
from ...seeding import random_words
from .batches import latent_noise

BATCH = 64
"""Images at once."""


@torch.no_grad()
def held_out_bound(
    model: VDVAEModel, dataset: ImageDataset, accelerator: Accelerator, batch_size: int | None = None
) -> dict[str, float]:
    """The mean bound and rate of all images, in bits per dimension: one draw of the latents each.

    All processes share the images, and get the same numbers. The noise of an image depends on its place alone, so that
    differences between steps, and between runs, are not those of the noise.

    Parameters
    ----------
    model : VDVAEModel
        In evaluation mode.
    dataset : ImageDataset
    accelerator : Accelerator
    batch_size : int, optional
        The most images at once; at most, and by default, 64.
    """
    device = accelerator.device
    model_device = next(model.parameters()).device
    generator = torch.Generator(model_device)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    own = range(accelerator.process_index, len(dataset), accelerator.num_processes)
    size = min(batch_size or BATCH, BATCH)
    for first in range(0, len(own), size):
        part = own[first : first + size]
        images = torch.stack([torch.as_tensor(dataset[index]["image"]) for index in part])
        words = random_words(0, "held out", range(len(dataset)))[part.start : part.stop : part.step]
        noise = latent_noise(words[:, 3], model.latent_shapes, generator)
        terms = model.elbo(to_grey_levels(to_device(images, model_device), grey_levels(model)), noise)
        sums += torch.stack([terms.bits_per_dim.double().sum(), terms.rate.double().sum() / math.log(2)]).to(device)
    loss, rate = (accelerator.reduce(sums, reduction="sum") / len(dataset)).tolist()
    return {"valid_loss": loss, "valid_rate": rate}
