"""Steps whose gradient is not finite, or too large: skipped and counted on the device, without waiting for it."""

from __future__ import annotations

import math

import torch


class StepGuard:
    """Decides over every step; the program learns of it when it reads `counts`, not before.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Fused: its kernels leave weights and moments alone where `found_inf` is 1, the protocol of PyTorch's gradient
        scaler.
    has_scaler : bool
        With fp16 the gradient scaler tells the optimizer itself.
    device : torch.device
    threshold : float, optional
        Norms from here on are too large; by default none is. Not with a gradient scaler, which knows only infinities.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        has_scaler: bool,
        device: torch.device,
        threshold: float | None = None,
    ) -> None:
        self._optimizer = optimizer
        self._has_scaler = has_scaler
        self._threshold = math.inf if threshold is None else threshold
        self._bad = torch.zeros((), device=device)
        self._in_a_row = torch.zeros((), device=device)

    def judge(self, norm: torch.Tensor) -> torch.Tensor:
        """Let the optimizer skip its next step unless `norm`, of the gradient, is finite and below the threshold.

        Parameters
        ----------
        norm : torch.Tensor
            Shape (), the same on all processes.

        Returns
        -------
        torch.Tensor
            Shape (), float32: 1 for a good step, 0 for one that is skipped.
        """
        good = (norm < self._threshold).float()  # which not a number is not either
        self._bad += 1 - good
        self._in_a_row = (self._in_a_row + 1) * (1 - good)
        if not self._has_scaler:
            self._optimizer.found_inf = 1 - good  # type: ignore[attr-defined]
        return good

    @property
    def counts(self) -> torch.Tensor:
        """Skipped steps in all, and in a row at present: shape (2,), on the device."""
        return torch.stack([self._bad, self._in_a_row])
