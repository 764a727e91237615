"""Networks by widths: the U-Net of diffusers that corresponds to a Flexi-UNet."""

from __future__ import annotations

from collections.abc import Sequence

from flexi_unet import ResizedUNet2DModel
from flexi_unet.routing import stage_sizes

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
    id2label: dict[int, str] | None = None,
    no_class_label: int | None = None,
) -> ResizedUNet2DModel:
    """diffusers' U-Net with guided-diffusion's blocks, of the same widths and attention as `FlexiUNet2DModel`.

    At full size it costs what Flexi-UNet costs whose exit stage runs its last block (`decoder_exit="full"`).

    Parameters
    ----------
    size : int or (height, width)
        The full resolution, at which it runs.
    widths : sequence of int
        The widths of its stages, fine to coarse.
    channels, layers_per_block, attention_resolutions, norm_num_groups, dropout
        As in `FlexiUNet2DModel`; layers_per_block is one number.
    num_class_embeds, id2label, no_class_label
        As in `FlexiUNet2DModel`.
    num_attention_heads : int
        The heads at the coarsest stage. diffusers' U-Net has heads of one width everywhere, so narrower stages have
        fewer.

    Raises
    ------
    ValueError
        For widths that cannot be divided into heads, and as `ResizedUNet2DModel`.

    Examples
    --------
    >>> unet = resized_unet_of(16, (32, 64), attention_resolutions=(8,))
    >>> unet.config.down_block_types
    ('DownBlock2D', 'AttnDownBlock2D')
    """
    attention = [min(stage) in tuple(attention_resolutions) for stage in stage_sizes(size, len(widths))]
    return ResizedUNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(widths),
        layers_per_block=layers_per_block,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        attention_head_dim=_head_width(widths, attention, num_attention_heads),
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=norm_num_groups,
        attn_norm_num_groups=norm_num_groups,
        norm_eps=NORM_EPS,
        dropout=dropout,
        num_class_embeds=num_class_embeds,
        id2label=id2label,
        no_class_label=no_class_label,
    )


def _head_width(widths: Sequence[int], attention: Sequence[bool], num_heads: int) -> int:
    """The channels of a head, which every stage with attention must have a whole number of."""
    head_width = widths[-1] // num_heads
    for width, has_attention in zip(widths, [*attention[:-1], True]):  # the middle always has attention
        if has_attention and (head_width < 1 or width % head_width):
            raise ValueError(
                f"diffusers' U-Net has attention heads of one width, here {widths[-1]} / {num_heads} = {head_width} "
                f"channels, into which the stage of {width} channels cannot be divided: change num_attention_heads, "
                "the widths or attention_resolutions."
            )
    return head_width
