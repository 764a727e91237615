"""A small VDVAE whose weights are all random, as after training: nothing of it is zero by construction."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vdvae import VDVAEModel

SETTINGS: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "enc_blocks": "8x2,8d2,4x1,4d4,1x2",
    "dec_blocks": "1x2,4m1,4x2r2,8m4,8x1",
    "width": 8,
    "latent_channels": 2,
    "num_mixtures": 2,
    "levels": 17,
}


def small_vdvae(**changes: Any) -> VDVAEModel:
    """In float32; all parameters N(0, 0.3^2)."""
    torch.manual_seed(0)
    model = VDVAEModel(**SETTINGS | changes)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval().requires_grad_(False)


def some_integers(count: int) -> torch.Tensor:
    """(count, 1, 8, 8), 0..16."""
    return torch.randint(17, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0))
