"""The network's calls in groups: coarse images are small, so more of them fit at once.

Shape letters: B batch, C channels; h w the size of x_t, H W the size of the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..operators.sizes import Size
from .guidance import GuidedNetwork


def images_per_call(sizes: Sequence[Size], batch_size: int, limit: int | Sequence[int] | None) -> dict[Size, int]:
    """How many images the network takes at once, by the size of its output.

    Parameters
    ----------
    sizes : sequence of (height, width)
        The sizes of the levels, fine to coarse.
    batch_size : int
        B, the answer for every size where there is no limit.
    limit : int or sequence of int, optional
        One number for every level, fine to coarse; or the number for the finest, so that the others have as many
        pixels.

    Examples
    --------
    >>> images_per_call([(32, 32), (16, 16)], 100, 8)
    {(32, 32): 8, (16, 16): 32}
    """
    if limit is None:
        return dict.fromkeys(sizes, batch_size)
    if isinstance(limit, int):
        limit = [limit * math.prod(sizes[0]) // math.prod(size) for size in sizes]
    if len(limit) != len(sizes) or min(limit) < 1:
        raise ValueError(
            f"max_batch_size_per_level must be one positive number or {len(sizes)}, one per level, got {limit}."
        )
    return dict(zip(sizes, limit))


def predict_in_groups(
    network: GuidedNetwork, x_t: torch.Tensor, timestep: torch.Tensor, output_size: Size, max_batch_size: int
) -> torch.Tensor:
    """The prediction for every image, by as few and as equal calls as `max_batch_size` allows.

    Parameters
    ----------
    network : GuidedNetwork
    x_t : torch.Tensor
        (B, C, h, w).
    timestep : torch.Tensor
        (1,), on the network's device.
    output_size : (height, width)
        (H, W).
    max_batch_size : int
        The most images of one call, at least 1.

    Returns
    -------
    torch.Tensor
        (B, C, H, W).
    """
    calls = -(-len(x_t) // max_batch_size)
    parts = zip(network.split(calls), x_t.tensor_split(calls))
    predictions = [part(x, timestep, output_size) for part, x in parts]
    return predictions[0] if calls == 1 else torch.cat(predictions)
