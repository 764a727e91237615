"""Predictions that are not finite, noted on the device as they come and asked for at the end."""

from __future__ import annotations

import torch


class FirstFaults:
    """The step at which the prediction of every image was first not finite; noting it never waits for the device.

    The final image does not tell: clipping turns infinity into white.

    Parameters
    ----------
    batch_size : int
        B.
    num_steps : int
        The number of steps, which stands for "never".
    device : torch.device

    Examples
    --------
    >>> faults = FirstFaults(2, 10, torch.device("cpu"))
    >>> faults.note(3, torch.tensor([[0.0], [torch.inf]]))
    >>> faults.first()
    (1, 3)
    """

    def __init__(self, batch_size: int, num_steps: int, device: torch.device) -> None:
        self._never = num_steps
        self._steps = torch.full((batch_size,), num_steps, device=device)

    def note(self, step: int, prediction: torch.Tensor) -> None:
        """Note which images of `prediction`, (B, ..), are not finite at `step`."""
        finite = torch.isfinite(prediction).flatten(1).all(dim=1)
        self._steps = torch.where(finite, self._steps, self._steps.clamp(max=step))

    def first(self) -> tuple[int, int] | None:
        """The first image of the batch with a fault, and its step; None without faults. Waits for the device."""
        for image, step in enumerate(self._steps.tolist()):
            if step < self._never:
                return image, step
        return None
