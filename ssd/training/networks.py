"""Networks by widths: the U-Net of diffusers that corresponds to a Flexi-UNet."""

from __future__ import annotations

from collections.abc import Sequence

from flexi_unet import ResizedUNet2DModel

NORM_EPS = 1e-5


def resized_unet_of(
    size: int | tuple[int, int],
    widths: Sequence[int],
    *,
    channels: int = 3,
    layers_per_block: int = 2,
    attention_resolutions: Sequence[int] = (16, 8),
    num_attention_heads: int = 4,
    norm_num_groups: int = 32,
    dropout: float = 0.0,
    num_class_embeds: int | None = None,
) -> ResizedUNet2DModel:
    """diffusers' U-Net with guided-diffusion's blocks, of the same widths and attention as `FlexiUNet2DModel`.

    Parameters
    ----------
    size : int or (height, width)
        The full resolution, at which it runs.
    widths : sequence of int
        Of its stages, fine to coarse.
    channels, layers_per_block, attention_resolutions, norm_num_groups, dropout, num_class_embeds
        As in `FlexiUNet2DModel`; layers_per_block is one number.
    num_attention_heads : int
        At the coarsest stage. diffusers' U-Net has heads of one width everywhere, so narrower stages have fewer.
    """
    short = size if isinstance(size, int) else min(size)
    attention = [(short >> stage) in tuple(attention_resolutions) for stage in range(len(widths))]
    return ResizedUNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(widths),
        layers_per_block=layers_per_block,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        attention_head_dim=max(1, widths[-1] // num_attention_heads),
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=norm_num_groups,
        attn_norm_num_groups=norm_num_groups,
        norm_eps=NORM_EPS,
        dropout=dropout,
        num_class_embeds=num_class_embeds,
    )
