"""Encoder and decoder stages of Flexi-UNet, built of diffusers' blocks.

Shape letters: B batch, C channels, H W pixels of the stage, E channels of the time embedding. Parameter names
follow `diffusers.UNet2DModel` (resnets, attentions, downsamplers, upsamplers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from .residual_block import ResidualBlock

NORM_EPS = 1e-5

DOWNSAMPLE_TYPES = ("conv", "average")


@dataclass(frozen=True)
class BlockSettings:
    """What all blocks of a network share."""

    time_embed_dim: int
    num_heads: int
    num_groups: int
    dropout: float
    downsample_type: str = "conv"

    def resnet(self, in_channels: int, out_channels: int) -> ResidualBlock:
        """A residual block with scale-shift group norm; its last convolution starts at zero."""
        block = ResidualBlock(
            in_channels, out_channels, self.time_embed_dim, self.num_groups, eps=NORM_EPS, dropout=self.dropout
        )
        zero_init(block.conv2)
        return block

    def attention(self, channels: int) -> Attention:
        """Self-attention over pixels with its group norm and residual; its projection starts at zero."""
        attention = Attention(
            channels,
            heads=self.num_heads,
            dim_head=channels // self.num_heads,
            norm_num_groups=self.num_groups,
            eps=NORM_EPS,
            residual_connection=True,
            bias=True,
            _from_deprecated_attn_block=True,
        )
        zero_init(attention.to_out[0])
        return attention

    def downsampler(self, channels: int) -> Downsample2D:
        """(B, C, H, W) -> (B, C, H/2, W/2): a stride-2 convolution, or the mean of 2 x 2 pixels."""
        return Downsample2D(channels, use_conv=self.downsample_type == "conv", padding=1, name="op")

    def upsampler(self, channels: int) -> Upsample2D:
        """(B, C, H, W) -> (B, C, 2H, 2W): pixels repeated, then a convolution beside the strided one."""
        return Upsample2D(channels, use_conv=self.downsample_type == "conv")


def zero_init(module: nn.Module) -> None:
    """Set all parameters to zero: a new residual branch begins as the identity (guided-diffusion's start)."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


class Stage(nn.Module):
    """Residual blocks, each followed by attention where the stage has it."""

    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., torch.Tensor]

    def __init__(self, settings: BlockSettings, widths: list[tuple[int, int]], attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([settings.resnet(*in_out) for in_out in widths])
        self.attentions = nn.ModuleList([settings.attention(out) for _, out in widths] if attention else [])

    def run(self, part: Callable[..., torch.Tensor], *inputs: Any) -> torch.Tensor:
        """part(*inputs); with gradient checkpointing only its inputs are kept for the backward pass."""
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(part, *inputs)
        return part(*inputs)

    def block(self, index: int, x: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
        """Residual block `index` and its attention: (B, C_in, H, W) -> (B, C_out, H, W)."""
        x = self.resnets[index](x, temb)
        return self.attentions[index](x) if len(self.attentions) else x


class EncoderStage(Stage):
    """`num_layers` blocks, then the downsampler unless the stage is the coarsest."""

    def __init__(
        self,
        settings: BlockSettings,
        in_channels: int,
        out_channels: int,
        num_layers: int,
        attention: bool,
        downsample: bool,
    ) -> None:
        widths = [(in_channels if i == 0 else out_channels, out_channels) for i in range(num_layers)]
        super().__init__(settings, widths, attention)
        self.downsamplers = nn.ModuleList([settings.downsampler(out_channels)] if downsample else [])

    def forward(self, x: torch.Tensor, temb: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Features of the stage and the input of the next one.

        Parameters
        ----------
        x : torch.Tensor
            (B, C_in, H, W), the feature that enters the stage.
        temb : torch.Tensor
            (B or 1, E).

        Returns
        -------
        features : list of torch.Tensor
            The entry feature and the output of every block: the decoder's skips, deepest last.
        x : torch.Tensor
            (B, C_out, H/2, W/2), or (B, C_out, H, W) at the coarsest stage.
        """
        features = [x]
        for index in range(len(self.resnets)):
            x = self.run(self.block, index, x, temb)
            features.append(x)
        for downsampler in self.downsamplers:
            x = downsampler(x)
        return features, x


class DecoderStage(Stage):
    """Blocks that each take a skip, then the upsampler unless the stage is the finest."""

    def __init__(
        self,
        settings: BlockSettings,
        in_channels: int,
        out_channels: int,
        skip_channels: list[int],
        attention: bool,
        upsample: bool,
    ) -> None:
        widths = [
            ((in_channels if i == 0 else out_channels) + skip, out_channels) for i, skip in enumerate(skip_channels)
        ]
        super().__init__(settings, widths, attention)
        self.skip_channels = skip_channels
        self.upsamplers = nn.ModuleList([settings.upsampler(out_channels)] if upsample else [])

    def forward(
        self,
        x: torch.Tensor,
        temb: torch.Tensor,
        skips: list[torch.Tensor],
        num_blocks: int,
        upsample: bool,
    ) -> torch.Tensor:
        """Run the first `num_blocks` blocks.

        Parameters
        ----------
        x : torch.Tensor
            (B, C_in, H, W).
        temb : torch.Tensor
            (B or 1, E).
        skips : list of torch.Tensor
            Encoder features for the first blocks, in their order; blocks beyond the list get zeros.
        num_blocks : int
            How many blocks run.
        upsample : bool
            Whether the upsampler runs.

        Returns
        -------
        torch.Tensor
            (B, C_out, H, W), or (B, C_out, 2H, 2W) after the upsampler.
        """
        for index in range(num_blocks):
            skip = skips[index] if index < len(skips) else None
            x = self.run(self.block_with_skip, index, x, temb, skip)
        if upsample:
            for upsampler in self.upsamplers:
                x = self.run(upsampler, x)
        return x

    def block_with_skip(
        self, index: int, x: torch.Tensor, temb: torch.Tensor, skip: torch.Tensor | None
    ) -> torch.Tensor:
        """Block `index` on x beside its skip, or beside zeros: (B, C_in - C_skip, H, W) -> (B, C_out, H, W)."""
        if skip is None:
            return self.block(index, F.pad(x, (0, 0, 0, 0, 0, self.skip_channels[index])), temb)
        return self.block(index, torch.cat([x, skip], dim=1), temb)


class MiddleStage(Stage):
    """Two residual blocks around one attention, at the coarsest size."""

    def __init__(self, settings: BlockSettings, channels: int) -> None:
        super().__init__(settings, [(channels, channels)] * 2, attention=False)
        self.attentions = nn.ModuleList([settings.attention(channels)])

    def forward(self, x: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = self.run(self.block, 0, x, temb)
        return self.run(self.resnets[1], x, temb)
