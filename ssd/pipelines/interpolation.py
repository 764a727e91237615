"""Images between two images: their noise interpolated, everywhere in the chain or at full resolution alone.

An image is a function of its noise: that of the first state and, where the image grows, that of the new details (with
eta = 1 also that of every other step). Between the noise e_0 and e_1 of two images lies

    e_w = cos(w pi / 2) e_0 + sin(w pi / 2) e_1,    0 <= w <= 1,

which is white noise of variance 1 for every w, since the two are independent: spherical interpolation of vectors at
right angles. A straight line would have too little variance in the middle.

Shape letters: B batch, C channels, h w the size of a state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers.utils.torch_utils import randn_tensor

from ..operators.placing import like
from ..operators.sizes import Size


def slerp(first: torch.Tensor, second: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Independent white noise, interpolated so that it stays white noise of variance 1.

    Parameters
    ----------
    first, second : torch.Tensor
        (1, C, h, w) or (B, C, h, w).
    weights : torch.Tensor
        w, (B,), in [0, 1]: 0 is the first, 1 the second.

    Returns
    -------
    torch.Tensor
        (B, C, h, w).

    Examples
    --------
    >>> slerp(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.tensor([0.0, 0.5])).flatten()
    tensor([1.0000, 0.7071])
    """
    angles = weights.to(torch.float64).view(-1, 1, 1, 1) * (math.pi / 2)
    return like(angles.cos(), first) * first + like(angles.sin(), first) * second


class InterpolatedNoise:
    """The noise of images between two images: what a pipeline takes as its `generator`, for one call.

    Image i depends on the two generators and on its weight alone, whatever the batch.

    Parameters
    ----------
    first, second : torch.Generator
        Those with which a pipeline draws the two images, as they are before.
    weights : sequence of float
        One for each of the B images, in [0, 1].
    only_size : (height, width), optional
        Noise of this size alone is interpolated, and the rest is the first image's: with the full resolution all images
        share their coarse states, and differ in their details. Default: all noise.

    Raises
    ------
    ValueError
        For weights that are not in [0, 1], or none.

    Examples
    --------
    >>> from flexi_unet import FlexiUNet2DModel
    >>> from ssd import SSDPipeline, SSDScheduler
    >>> unet = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 32))
    >>> pipe = SSDPipeline(unet, SSDScheduler(sample_size=16, num_levels=2))
    >>> pipe.set_progress_bar_config(disable=True)
    >>> noise = InterpolatedNoise(*(torch.Generator().manual_seed(seed) for seed in (1, 2)), weights=[0.0, 0.5, 1.0])
    >>> pipe(3, num_inference_steps=6, eta=0.0, generator=noise, output_type="pt").images.shape
    torch.Size([3, 3, 16, 16])
    """

    def __init__(
        self,
        first: torch.Generator,
        second: torch.Generator,
        weights: Sequence[float],
        only_size: Size | None = None,
    ) -> None:
        if not weights or not all(0 <= weight <= 1 for weight in weights):
            raise ValueError(f"weights must be numbers in [0, 1], one for each image, got {list(weights)}.")
        self._generators, self._only_size = (first, second), only_size
        self._weights = torch.tensor(weights, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self._weights)

    def white_noise(self, images: torch.Tensor) -> torch.Tensor:
        """See `NoiseSource`. Both images' numbers are drawn in any case, so that each stays the image that it is."""
        shape = (1, *images.shape[1:])
        first, second = (
            randn_tensor(shape, generator=generator, device=images.device, dtype=images.dtype)
            for generator in self._generators
        )
        if self._only_size in (None, tuple(images.shape[-2:])):
            return slerp(first, second, self._weights)
        return first.expand_as(images).clone()
