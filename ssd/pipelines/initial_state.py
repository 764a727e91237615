"""The state from which a reverse process starts.

Shape letters: B batch, C channels, h w the size of x_t at the first timestep.
"""

from __future__ import annotations

import torch
from diffusers.utils.torch_utils import randn_tensor

from ..process.posterior import Generators


def initial_state(
    shape: tuple[int, int, int, int],
    generator: Generators,
    given: torch.Tensor | None,
    device: torch.device,
) -> torch.Tensor:
    """White noise, or the state that the caller gave, in float32 or better whatever the network's dtype.

    Parameters
    ----------
    shape : tuple of int
        (B, C, h, w).
    generator : torch.Generator or sequence of B torch.Generator, optional
    given : torch.Tensor, optional
        x_t instead of noise.
    device : torch.device

    Raises
    ------
    ValueError
        When the given state has another shape.
    """
    if given is None:
        generator = list(generator) if isinstance(generator, tuple) else generator  # diffusers knows lists only
        return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
    if tuple(given.shape) != shape:
        raise ValueError(
            f"latents must have the shape of x_t at the first timestep, {shape}, got {tuple(given.shape)}."
        )
    return given.to(device, torch.promote_types(given.dtype, torch.float32))


def check_generators(generator: Generators, batch_size: int) -> None:
    """Raise a ValueError unless there is at most one generator, or one per image."""
    if isinstance(generator, (list, tuple)) and len(generator) != batch_size:
        raise ValueError(f"Got {len(generator)} generators for {batch_size} images: give one, or one per image.")
