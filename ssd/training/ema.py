"""Moving averages of the weights: one network per decay, in float32."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch

WARMUP_POWER = 3 / 4


class EmaNetworks:
    """Networks with averaged weights; the first is the one that is sampled and saved.

    The decay of update n = 0, 1, .. is 1 - (1 + n)^-0.75 until it reaches its value, so the first update copies the
    weights. This is the warm-up of diffusers' `EMAModel`; here a skipped step changes nothing, without a wait for the
    device.

    Parameters
    ----------
    network : torch.nn.Module
        The network in training, with float32 weights, before an engine shards it.
    decays : sequence of float
        In [0, 1), at least one.
    device : torch.device
        Where the averages live. The CPU saves accelerator memory and costs a copy per step.
    """

    def __init__(self, network: torch.nn.Module, decays: Sequence[float], device: torch.device) -> None:
        self.device = device
        self.decays = list(decays)
        self.networks: list[Any] = [copy.deepcopy(network).eval().requires_grad_(False).to(device) for _ in decays]
        self._updates = torch.zeros((), dtype=torch.float64, device=device)

    @property
    def updates(self) -> int:
        """How often the averages were updated."""
        return int(self._updates)

    @updates.setter
    def updates(self, number: int) -> None:
        self._updates.fill_(number)

    @torch.no_grad()
    def update(self, weights: Iterable[torch.Tensor], good: torch.Tensor | float = 1.0) -> None:
        """Move every average towards the present weights.

        Parameters
        ----------
        weights : iterable of torch.Tensor
            The parameters of the network in training, whole, in their order.
        good : torch.Tensor or float
            0 for a step that was skipped: nothing changes then.
        """
        good = torch.as_tensor(good).to(self.device, torch.float64)
        warmed_up = 1 - (1 + self._updates) ** -WARMUP_POWER
        self._updates += good
        present = [weight.detach().to(self.device) for weight in weights]
        for decay, network in zip(self.decays, self.networks):
            share = (good * (1 - warmed_up.clamp(max=decay))).float()
            averages: list[torch.Tensor] = list(network.parameters())
            towards = torch._foreach_sub(present, averages)
            torch._foreach_mul_(towards, share)
            torch._foreach_add_(averages, towards)
