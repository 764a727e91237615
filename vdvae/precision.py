"""Where half precision is not enough."""

from __future__ import annotations

import torch


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Half precision becomes float32: divergences and probabilities of grey levels need it."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
