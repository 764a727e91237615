"""Random numbers for many images at once: from one generator, or from one generator per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.utils.torch_utils import randn_tensor

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One generator for all images, or one per image: then every image depends on its own generator alone."""


def check_generators(generator: Generators, batch_size: int) -> None:
    """Raise a ValueError unless there is one generator, or one per image."""
    if isinstance(generator, Sequence) and len(generator) != batch_size:
        raise ValueError(f"Give one generator, or one for each of {batch_size} images; got {len(generator)}.")


def draw_normals(shape: Sequence[int], generator: Generators, like: torch.Tensor) -> torch.Tensor:
    """Standard normals (B, ..) with the device and dtype of `like`.

    Examples
    --------
    >>> two = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    >>> one = [torch.Generator().manual_seed(2)]
    >>> like = torch.zeros(())
    >>> bool((draw_normals((2, 3), two, like)[1:] == draw_normals((1, 3), one, like)).all())
    True
    """
    check_generators(generator, shape[0])
    generators = list(generator) if isinstance(generator, Sequence) else generator
    return randn_tensor(tuple(shape), generator=generators, device=like.device, dtype=like.dtype)


def draw_uniforms(shape: Sequence[int], generator: Generators, like: torch.Tensor) -> torch.Tensor:
    """Uniform numbers in [0, 1), (B, ..), float32, on the device of `like`; drawn where the generators are."""
    check_generators(generator, shape[0])
    if isinstance(generator, Sequence):
        rows = [torch.rand(tuple(shape[1:]), generator=one, device=one.device) for one in generator]
        return torch.stack(rows).to(like.device)
    device = like.device if generator is None else generator.device
    return torch.rand(tuple(shape), generator=generator, device=device).to(like.device)
