"""Small tensors brought to where images are, without making the program wait for the device."""

from __future__ import annotations

import torch

PAGE_LOCKED_COPIES = frozenset({"cuda", "xpu"})
"""Devices that copy from page-locked memory on their own, while the program continues."""


def to_device(tensor: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """`tensor` on `device`; from the CPU to an accelerator the copy is queued like any other work of the device.

    An ordinary copy waits until the device has done all earlier work. One from page-locked memory does not, and
    PyTorch keeps that memory until the copy is done. Locking copies the tensor once more, so this is for small ones:
    coefficients, timesteps, labels.

    Parameters
    ----------
    tensor : torch.Tensor
    device : str or torch.device

    Examples
    --------
    >>> to_device(torch.arange(3), "cpu")
    tensor([0, 1, 2])
    """
    device = torch.device(device)
    if tensor.device.type == "cpu" and device.type in PAGE_LOCKED_COPIES:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def like(coefficient: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`coefficient` ready to be multiplied with x: in its dtype and on its device.

    A number, shape (), stays as it is: a product with it needs no move.
    """
    return coefficient if coefficient.ndim == 0 else to_device(coefficient.to(x.dtype), x.device)
