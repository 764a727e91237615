"""The state from which a reverse process starts.

Shape letters: B batch, C channels, h w the size of x_t at the first timestep.
"""

from __future__ import annotations

from collections.abc import Sized

import torch

from ..process.posterior import Generators, white_noise


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
    generator : torch.Generator, sequence of B torch.Generator or NoiseSource, optional
    given : torch.Tensor, optional
        x_t instead of noise.
    device : torch.device

    Raises
    ------
    ValueError
        When the given state has another shape.
    """
    if given is None:
        return white_noise(torch.empty(shape, device=device, dtype=torch.float32), generator)
    if tuple(given.shape) != shape:
        raise ValueError(
            f"latents must have the shape of x_t at the first timestep, {shape}, got {tuple(given.shape)}."
        )
    return given.to(device, torch.promote_types(given.dtype, torch.float32))


def check_generators(generator: Generators, batch_size: int) -> None:
    """Raise a ValueError unless there is at most one generator, or one per image, or noise of as many images."""
    number = len(generator) if isinstance(generator, Sized) else batch_size
    if number != batch_size:
        if isinstance(generator, (list, tuple)):
            raise ValueError(f"Got {number} generators for {batch_size} images: give one, or one per image.")
        raise ValueError(f"Got noise of {number} images for {batch_size} images: give as many weights as images.")
