"""Bits per dimension of either family: the estimate that belongs to a pipeline, on images of its grey levels."""

from __future__ import annotations

from typing import Any

from accelerate import PartialState

from ..pipeline_ssd import SSDPipeline
from ..pipeline_vdvae import VDVAEPipeline, grey_levels
from .given_images import NumberedImages
from .likelihood import LikelihoodSettings, estimate_bits_per_dim
from .vdvae_likelihood import estimate_vdvae_bits_per_dim


def own_grey_levels(pipeline: SSDPipeline | VDVAEPipeline, chosen: int) -> int:
    """The grey levels of a VDVAE's likelihood; those that were chosen for a diffusion model, whose bins may be any."""
    return grey_levels(pipeline.vdvae) if isinstance(pipeline, VDVAEPipeline) else chosen


def estimate_any_bits_per_dim(
    pipeline: SSDPipeline | VDVAEPipeline,
    images: NumberedImages,
    settings: LikelihoodSettings,
    importance_samples: int,
    seed: int,
    state: PartialState,
) -> dict[str, Any]:
    """The numbers of a report, estimated by all processes together.

    Parameters
    ----------
    pipeline : SSDPipeline or VDVAEPipeline
    images : NumberedImages
        Those of this process, rounded to `own_grey_levels`.
    settings : LikelihoodSettings
        Of a diffusion model.
    importance_samples : int
        Of a VDVAE.
    seed : int
        Of the draws.
    state : PartialState
    """
    if isinstance(pipeline, VDVAEPipeline):
        return estimate_vdvae_bits_per_dim(pipeline, images, importance_samples, seed, state)
    return estimate_bits_per_dim(pipeline, images, settings, seed, state)
