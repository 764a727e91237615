"""Bits per dimension of a VDVAE: its bound on held-out images, and the tighter ones of several draws of the latents.

The same images, dimensions and standard errors as in `likelihood`, so that both families stand on one ruler. Equations
in `vdvae.importance`. The bounds of 1, 2, 4, .. draws are made of the same draws in groups, so that none is above the
one before (Jensen's inequality); the bound of one draw with the divergences in closed form has draws of its own.

Shape letters: B images, N draws.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from vdvae import VDVAEModel
from vdvae.importance import importance_weighted_bound, log_weights

from ..commands.errors import UsageError
from ..pipeline_vdvae import VDVAEPipeline, grey_levels, to_grey_levels
from ..seeding import torch_generator
from .given_images import ImageBatch, NumberedImages
from .processes import gather_list

MAX_SAMPLES = 4096
"""Draws of the latents per image, at most."""


def check_importance_samples(number: int) -> None:
    """Raise a `UsageError` unless the number is a power of two, whose halves make the bounds of fewer draws."""
    if not 1 <= number <= MAX_SAMPLES or number & (number - 1):
        raise UsageError(f"--importance_samples must be 1, 2, 4, 8 .. up to {MAX_SAMPLES}, got {number}.")


def estimate_vdvae_bits_per_dim(
    pipeline: VDVAEPipeline, images: NumberedImages, importance_samples: int, seed: int, state: PartialState
) -> dict[str, Any]:
    """Bits per dimension of images, estimated by all processes together: the numbers of a report.

    Parameters
    ----------
    pipeline : VDVAEPipeline
    images : NumberedImages
        Those of this process.
    importance_samples : int
        N, a power of two. 1 gives the bound alone.
    seed : int
        Of the draws: those of an image depend on the seed and on its number alone.
    state : PartialState
    """
    model, parts, grey = pipeline.vdvae, [], True
    with tqdm(total=len(images), desc="likelihood", unit=" images", disable=not state.is_main_process) as progress:
        for batch in images:
            parts.append(_bounds(model, batch, importance_samples, seed))
            grey &= bool((batch.x_0 == batch.x_0[:, :1]).all())
            progress.update(len(batch.x_0))
    parts, grey = gather_list(parts, state), all(gather_list([grey], state))
    dimensions = model.num_dims // model.config.in_channels * (1 if grey else model.config.in_channels)
    bits = {name: np.concatenate([part[name] for part in parts]) / (math.log(2) * dimensions) for name in parts[0]}
    numbers = {}
    for name, values in bits.items():
        numbers[name] = float(values.mean())
        if name != "bits_per_dim_nll":
            error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            numbers[f"{name}_standard_error"] = float(error)
    return numbers | {
        "bits_per_dim_images": len(bits["bits_per_dim"]),
        "bits_per_dim_dimensions": dimensions,
        "bits_per_dim_grey_levels": grey_levels(model),
    }


@torch.no_grad()
def _bounds(model: VDVAEModel, batch: ImageBatch, num_samples: int, seed: int) -> dict[str, np.ndarray]:
    """The bounds of a batch and their parts: name -> (B,), float64, nats."""
    integers = to_grey_levels(batch.x_0, grey_levels(model))

    def generators(purpose: str) -> list[torch.Generator]:
        return [torch_generator(seed, purpose, number) for number in batch.numbers]

    terms = model.elbo(integers, generator=generators("likelihood latents"))
    nll, rate = (model.num_dims * values.double() for values in (terms.nll, terms.rate))
    bounds = {"bits_per_dim": nll + rate, "bits_per_dim_nll": nll, "bits_per_dim_rate": rate}
    if num_samples > 1:
        weights = log_weights(model, integers, num_samples, generators("importance samples"))
        for exponent in range(num_samples.bit_length()):
            name = f"bits_per_dim_importance_{2**exponent}"
            bounds[name] = importance_weighted_bound(weights, 2**exponent)
    return {name: values.cpu().numpy() for name, values in bounds.items()}
