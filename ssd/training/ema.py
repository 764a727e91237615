"""Moving averages of the weights: one network per decay or width, in float32."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from .power_average import exponent_of

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
    widths : sequence of float
        Of further averages, which are power functions of time (`power_average`).
    """

    def __init__(
        self, network: torch.nn.Module, decays: Sequence[float], device: torch.device, widths: Sequence[float] = ()
    ) -> None:
        self.device = device
        self.decays, self.widths = list(decays), list(widths)
        self._powers = [exponent_of(width) + 1 for width in widths]
        count = len(self.decays) + len(self.widths)
        self.networks: list[Any] = [
            copy.deepcopy(network).eval().requires_grad_(False).to(device) for _ in range(count)
        ]
        self._updates = torch.zeros((), dtype=torch.float64, device=device)

    @property
    def of_widths(self) -> list[Any]:
        """The networks of the power-function averages."""
        return self.networks[len(self.decays) :]

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
        betas = [warmed_up.clamp(max=decay) for decay in self.decays]
        betas += [(1 - 1 / self._updates.clamp(min=1)) ** power for power in self._powers]
        for beta, network in zip(betas, self.networks):
            share = (good * (1 - beta)).float()
            averages: list[torch.Tensor] = list(network.parameters())
            towards = torch._foreach_sub(present, averages)
            torch._foreach_mul_(towards, share)
            torch._foreach_add_(averages, towards)
