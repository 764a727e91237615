"""Moving averages of the weights: one network per decay, in float32."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from diffusers.training_utils import EMAModel

from flexi_unet import FlexiUNet2DModel

WARMUP_POWER = 3 / 4


class EmaNetworks:
    """Networks with averaged weights; the first is the one that is sampled and saved.

    The decay warms up as 1 - (1 + step)^-0.75 until it reaches its value (diffusers' `EMAModel`).

    Parameters
    ----------
    unet : FlexiUNet2DModel
        The network in training, with float32 weights.
    decays : sequence of float
        In [0, 1), at least one.
    device : torch.device
        Where the averages live; the CPU saves accelerator memory and costs a copy per step.
    """

    def __init__(self, unet: FlexiUNet2DModel, decays: Sequence[float], device: torch.device) -> None:
        self.device = device
        self.networks = [copy.deepcopy(unet).eval().requires_grad_(False).to(device) for _ in decays]
        self._averages = []
        for decay, network in zip(decays, self.networks):
            average = EMAModel(network.parameters(), decay, use_ema_warmup=True, power=WARMUP_POWER, foreach=True)
            average.shadow_params = list(network.parameters())  # averaged in place, without another copy
            self._averages.append(average)

    @property
    def updates(self) -> int:
        """How often the averages were updated."""
        return self._averages[0].optimization_step

    @updates.setter
    def updates(self, number: int) -> None:
        for average in self._averages:
            average.optimization_step = number

    @torch.no_grad()
    def update(self, unet: FlexiUNet2DModel) -> None:
        """Move every average towards the present weights."""
        # EMAModel copies what needs no gradient and averages the rest, so the present weights must need one.
        present = [p.to(self.device).detach().requires_grad_() for p in unet.parameters()]
        for average in self._averages:
            average.step(present)
