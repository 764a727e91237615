"""The "full U-Net" of arXiv:2603.08709, table 4: any U-Net of diffusers serves every resolution by resizing in and out.

Shape letters: B batch, C image channels; H W the input's size, H' W' the output's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

# By name: diffusers looks for ModelMixin in this module when it reads model_index.json.
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from diffusers.models.unets.unet_2d import UNet2DModel, UNet2DOutput

from .loading import aligned
from .resizing import resize
from .routing import Size


class ResizedUNet2DModel(UNet2DModel):
    """A `UNet2DModel` of diffusers, with its configuration and its weights, for images of every size.

    The whole network runs at its own `sample_size` for every resolution, so coarse levels cost as much as the finest:
    it is the baseline that Flexi-UNet is compared with, and the simplest way to try scale space diffusion with a U-Net
    that you have.

    Examples
    --------
    >>> unet = ResizedUNet2DModel(
    ...     sample_size=16,
    ...     block_out_channels=(32, 32),
    ...     down_block_types=("DownBlock2D",) * 2,
    ...     up_block_types=("UpBlock2D",) * 2,
    ... )
    >>> unet(torch.zeros(2, 3, 5, 5), timestep=500, output_size=(7, 7)).sample.shape
    torch.Size([2, 3, 7, 7])
    """

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a saved network, also one that was saved as a `UNet2DModel`; see `FlexiUNet2DModel.from_pretrained`."""
        return aligned(super().from_pretrained(*args, **kwargs))

    def own_size(self, asked: Size) -> Size:
        """The size at which the network runs: its `sample_size`, or what is asked where it has none."""
        return asked if self.config.sample_size is None else _pair(self.config.sample_size)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
        *,
        output_size: int | Sequence[int] | None = None,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """As `UNet2DModel`, between any two sizes.

        Parameters
        ----------
        sample : torch.Tensor
            x_t, shape (B, C, H, W).
        timestep : int, float or tensor of shape (), (1,) or (B,)
        class_labels : torch.Tensor, optional
            Shape (B,), integers; needed exactly when the model has class embeddings.
        return_dict : bool
            Whether to return a `UNet2DOutput` rather than a tuple.
        output_size : int or (height, width), optional
            Default the input's size.

        Returns
        -------
        UNet2DOutput or tuple
            `.sample` of shape (B, C, H', W').
        """
        asked: Size = _pair(output_size) if output_size is not None else (sample.shape[-2], sample.shape[-1])
        own = self.own_size(asked)
        if tuple(sample.shape[-2:]) != own:
            sample = resize(sample, own)
        x = super().forward(sample, timestep, class_labels, return_dict=False)[0]
        if own != asked:
            x = resize(x, asked)
        return UNet2DOutput(sample=x) if return_dict else (x,)


def _pair(size: int | Sequence[int]) -> Size:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
