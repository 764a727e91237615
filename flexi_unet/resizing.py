"""Images between sizes, as the networks resize what comes in and what goes out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .routing import Size


def resize(x: torch.Tensor, size: Size) -> torch.Tensor:
    """Bilinear, without aligned corners, and antialiased where a side shrinks; x itself where it has the size.

    Parameters
    ----------
    x : torch.Tensor
        (B, C, H, W), of any floating type.
    size : (height, width)

    Returns
    -------
    torch.Tensor
        (B, C, *size), in the dtype of x.

    Examples
    --------
    >>> resize(torch.arange(4.0).view(1, 1, 1, 4), (1, 2))
    tensor([[[[0.7143, 2.2857]]]])
    """
    if x.shape[-2:] == tuple(size):
        return x
    if size[0] >= x.shape[-2] and size[1] >= x.shape[-1]:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    # PyTorch has no antialiased kernel for half precision on the CPU.
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.interpolate(exact, size=size, mode="bilinear", align_corners=False, antialias=True).to(x.dtype)


def asked_sizes(sample: torch.Tensor, output_size: int | Sequence[int] | None) -> tuple[Size, Size]:
    """What a call of a network asks for: the size of `sample`, and the size of the prediction, by default the same."""
    input_size = (sample.shape[-2], sample.shape[-1])
    if output_size is None:
        return input_size, input_size
    height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
    return input_size, (height, width)
