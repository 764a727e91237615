"""Model cards of VDVAE: the README.md beside a saved pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..pipeline_vdvae import VDVAEPipeline
from .model_card import card_text

_VDVAE = "[arXiv:2011.10650](https://arxiv.org/abs/2011.10650)"
_SHARED = "[arXiv:2301.08187](https://arxiv.org/abs/2301.08187)"


def vdvae_card(
    pipeline: VDVAEPipeline, location: str, origin: Mapping[str, str], licence: str, datasets: Sequence[str] = ()
) -> str:
    """Text of the model card of a VDVAE; parameters as those of `model_card`."""
    model, config = pipeline.vdvae, pipeline.vdvae.config
    distinct = len({spec.module for spec in model.cells})
    shared = distinct < len(model.cells)
    return card_text(
        f"{'WS-VDVAE' if shared else 'VDVAE'}, {config.sample_size} x {config.sample_size} pixels",
        f"A very deep variational autoencoder ({_VDVAE})"
        + (f"\nwhose blocks are applied several times ({_SHARED})." if shared else "."),
        "VDVAEPipeline",
        location,
        origin,
        {
            "Network": f"VDVAEModel, {model.num_parameters() / 1e6:.3g} M parameters, width {config.width}",
            "Bottom-up blocks": f"`{config.enc_blocks}`",
            "Top-down blocks": f"`{config.dec_blocks}`",
            "Cells": f"{len(model.cells)} applied, {distinct} with weights of their own, each with "
            f"{config.latent_channels} latent channels",
            "Likelihood": f"{config.likelihood} over {config.levels} grey levels",
        },
        licence,
        tag="vdvae",
        datasets=datasets,
    )
