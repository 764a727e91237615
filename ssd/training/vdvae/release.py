"""What a run of VDVAE publishes when it saves."""

from __future__ import annotations

from typing import Any

from ...pipeline_vdvae import VDVAEPipeline
from ...publishing.vdvae_card import vdvae_card
from ..checkpoints import TrainState
from ..release import LICENCE, Release, origin_of
from .config import BETAS, VDVAETrainConfig


def vdvae_release(config: VDVAETrainConfig, state: TrainState, changes: list[dict[str, Any]]) -> Release:
    """The release of a run of VDVAE; `changes`: settings that changed when the run was resumed."""
    of_vdvae = {
        "Loss": "the evidence lower bound, in nats per dimension",
        "Steps taken": f"betas {BETAS[0]:g} and {BETAS[1]:g}, gradients clipped to a norm of {config.max_grad_norm:g}",
    }

    def release() -> tuple[VDVAEPipeline, str]:
        pipeline = VDVAEPipeline(state.ema.networks[0])
        return pipeline, vdvae_card(pipeline, config.out, origin_of(config, state.progress, changes, of_vdvae), LICENCE)

    return release
