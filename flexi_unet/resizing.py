"""Images between sizes, as the networks resize what comes in and what goes out."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .routing import Size


def resize(x: torch.Tensor, size: Size) -> torch.Tensor:
    """Bilinear, without aligned corners, and antialiased where the image shrinks: (B, C, H, W) -> (B, C, *size)."""
    if size[0] >= x.shape[-2] and size[1] >= x.shape[-1]:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    # PyTorch has no antialiased kernel for half precision on the CPU.
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.interpolate(exact, size=size, mode="bilinear", align_corners=False, antialias=True).to(x.dtype)
