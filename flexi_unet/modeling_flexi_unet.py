"""Flexi-UNet: one U-Net of which each resolution runs only its own part (arXiv:2603.08709, section 4).

Shape letters: B batch, C image channels, H W the input's size, H' W' the output's size, E channels of the time
embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import AttentionMixin
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from .class_names import NamedClasses, check_no_class, checked_names
from .loading import aligned
from .patches import check_patches, folding_conv, unfolding_conv
from .resizing import asked_sizes, resize
from .routing import DECODER_EXITS, Route, Size, plan_route, stage_sizes
from .stages import DOWNSAMPLE_TYPES, NORM_EPS, BlockSettings, DecoderStage, EncoderStage, MiddleStage


class FlexiUNet2DModel(NamedClasses, ModelMixin, AttentionMixin, ConfigMixin):
    """A guided-diffusion U-Net with a 1x1 entry and exit adapter for every resolution below the full one.

    It takes images of any size up to the full one. A size between two stages enters, or leaves, at the finer one,
    resized (bilinear); one below all stages at the coarsest.

    Parameters
    ----------
    sample_size : int or (height, width)
        The full resolution in pixels; each side divisible by 2^(number of stages - 1).
    in_channels, out_channels : int
        The channels of x_t and of the prediction.
    block_out_channels : sequence of int
        The width of every stage, fine to coarse; each divisible by `norm_num_groups`, and by
        `num_attention_heads` where the stage has attention.
    layers_per_block : int or sequence of int
        Residual blocks of an encoder stage (a decoder stage has one more): one number, or one per stage, fine
        to coarse.
    attention_resolutions : sequence of int
        Stages whose shorter side is in this list have attention; the middle always has. Sides are those of the images,
        before patches fold them.
    num_attention_heads, norm_num_groups : int
        Heads of every attention, and groups of every group norm.
    dropout : float
        The dropout inside residual blocks, in [0, 1).
    num_class_embeds : int, optional
        The number of class embeddings, for class-conditional models, "no class" among them.
    patch_size : int
        p: the stages see images folded into patches of p x p pixels, see `patches`. p divides the sides of all stages,
        and p^2 the width of the finest. 1, as published: no patches.
    downsample_type : {"conv", "average"}
        How features change size between stages: by a stride-2 convolution down and a convolution after repeating pixels
        up (as published), or by means of 2 x 2 pixels down and repeated pixels up, without weights. Means are
        orthogonal projections in the Haar basis (docs/bridges.md).
    decoder_exit : {"early", "full"}
        Whether the exit stage leaves its last residual block out (as published) or runs it; see `routing`.
    time_embed_channels : int, optional
        The width of the sinusoidal time embedding; default block_out_channels[0]. Published networks whose
        finest stage is narrower than their base width need it.
    id2label : dict of int to str, optional
        The names of the classes, one for every class embedding but "no class". JSON has keys as texts, which become
        integers again.
    no_class_label : int, optional
        The class embedding that means "no class": the last one, num_class_embeds - 1; or -1, where there is none.
        Networks that do not state it, which are older, are read as having the last one.

    Examples
    --------
    >>> unet = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 64))
    >>> unet(torch.zeros(2, 3, 8, 8), timestep=999).sample.shape
    torch.Size([2, 3, 8, 8])
    >>> unet(torch.zeros(2, 3, 8, 8), timestep=500, output_size=(16, 16)).sample.shape
    torch.Size([2, 3, 16, 16])
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["EncoderStage", "DecoderStage", "MiddleStage"]  # noqa: RUF012 (diffusers reads a list)
    _repeated_blocks = ["ResidualBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["norm", "time_embedding"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 64,
        in_channels: int = 3,
        out_channels: int = 3,
        block_out_channels: tuple[int, ...] = (128, 256, 384, 512),
        layers_per_block: int | tuple[int, ...] = 2,
        attention_resolutions: tuple[int, ...] = (16, 8),
        num_attention_heads: int = 4,
        norm_num_groups: int = 32,
        dropout: float = 0.0,
        num_class_embeds: int | None = None,
        decoder_exit: str = "early",
        time_embed_channels: int | None = None,
        id2label: dict[int, str] | None = None,
        patch_size: int = 1,
        downsample_type: str = "conv",
        no_class_label: int | None = None,
    ) -> None:
        super().__init__()
        check_no_class(no_class_label, num_class_embeds)
        if id2label is not None:
            self.register_to_config(id2label=checked_names(id2label, num_class_embeds, no_class_label))
        widths = list(block_out_channels)
        if not widths or min(widths) < 1:
            raise ValueError(f"block_out_channels must be positive widths, fine to coarse, got {widths}.")
        num_stages, base = len(widths), widths[0]
        layers = [layers_per_block] * num_stages if isinstance(layers_per_block, int) else list(layers_per_block)
        self.stage_sizes = stage_sizes(sample_size, num_stages)
        has_attention = [min(size) in tuple(attention_resolutions) for size in self.stage_sizes]
        _check_architecture(widths, layers, has_attention, num_attention_heads, norm_num_groups, decoder_exit)
        check_patches(patch_size, base, self.stage_sizes[-1])
        if downsample_type not in DOWNSAMPLE_TYPES:
            raise ValueError(f"downsample_type must be one of {', '.join(DOWNSAMPLE_TYPES)}, got {downsample_type!r}.")
        self._layers = layers

        time_channels = time_embed_channels or base
        time_embed_dim = 4 * time_channels
        settings = BlockSettings(time_embed_dim, num_attention_heads, norm_num_groups, dropout, downsample_type)
        self.time_proj = Timesteps(time_channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(time_channels, time_embed_dim)
        self.class_embedding = nn.Embedding(num_class_embeds, time_embed_dim) if num_class_embeds else None

        self.conv_in = folding_conv(in_channels, base, patch_size)
        entry_widths = [base, *widths[:-1]]  # width of the feature that enters each stage
        self.entry_adapters = _entry_adapters(base, entry_widths)
        self.exit_adapters = _exit_adapters(base, widths)
        self._entry_widths = entry_widths

        self.down_blocks = _encoder(settings, entry_widths, widths, layers, has_attention)
        self.mid_block = MiddleStage(settings, widths[-1])
        self.up_blocks = _decoder(settings, entry_widths, widths, layers, has_attention, decoder_exit)

        self.conv_norm_out = nn.GroupNorm(norm_num_groups, base, eps=NORM_EPS)
        self.conv_act = nn.SiLU()
        self.conv_out = unfolding_conv(base, out_channels, patch_size)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a saved network (see diffusers' `ModelMixin`), with its weights where arithmetic is reproducible."""
        return aligned(super().from_pretrained(*args, **kwargs))

    def route(self, input_size: Size, output_size: Size | None = None) -> Route:
        """The part of the network that a pair of sizes uses; `output_size` defaults to the input's."""
        return plan_route(
            input_size, output_size or input_size, self.stage_sizes, self._layers, self.config.decoder_exit
        )

    def working_sizes(self, input_size: Size, output_size: Size | None = None) -> tuple[Size, Size]:
        """The sizes of the stages to which an input, and from which its prediction, is resized.

        Raises
        ------
        ValueError
            For a size above the full resolution, or an output smaller than the input.
        """
        route = self.route(input_size, output_size)
        return route.input_size, route.output_size

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
        *,
        output_size: int | Sequence[int] | None = None,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """Predict the clean image at the next resolution.

        Parameters
        ----------
        sample : torch.Tensor
            x_t, shape (B, C, H, W), up to the full resolution.
        timestep : int, float or tensor of shape (), (1,) or (B,)
        class_labels : torch.Tensor, optional
            Shape (B,), integers; needed exactly when the model has class embeddings.
        return_dict : bool
            Whether to return a `UNet2DOutput` rather than a tuple.
        output_size : int or (height, width), optional
            Up to the full resolution, and no smaller than the input; default the input's size. By name only: what
            stands before it has the order of diffusers' `UNet2DModel`.

        Raises
        ------
        ValueError
            For sizes above the full resolution, an output smaller than the input, or class labels that are missing or
            not understood.

        Returns
        -------
        UNet2DOutput or tuple
            `.sample` of shape (B, C, H', W').
        """
        input_size, output_size = asked_sizes(sample, output_size)
        route = self.route(input_size, output_size)
        temb = self._embed(timestep, class_labels, sample.device)

        x = self.conv_in(resize(sample, route.input_size))
        x = _adapt(self.entry_adapters, self._entry_widths[route.entry_stage], x)

        features = {}
        for stage in route.encoder:
            features[stage], x = self.down_blocks[stage](x, temb)
        x = self.mid_block(x, temb)
        for step in route.decoder:
            skips = features.get(step.stage, [])[::-1][: step.num_skips]
            x = self.up_blocks[-1 - step.stage](x, temb, skips, step.num_blocks, step.upsample)

        x = _adapt(self.exit_adapters, x.shape[1], x)
        x = resize(self.conv_out(self.conv_act(self.conv_norm_out(x))), output_size)
        return UNet2DOutput(sample=x) if return_dict else (x,)

    def _embed(
        self, timestep: torch.Tensor | float, class_labels: torch.Tensor | None, device: torch.device
    ) -> torch.Tensor:
        """The time (and class) embedding: (B, E), or (1, E) when one timestep serves the whole batch."""
        t = torch.as_tensor(timestep, device=device).reshape(-1)
        temb = self.time_embedding(self.time_proj(t).to(self.dtype))
        if (self.class_embedding is None) != (class_labels is None):
            state = "has no class embeddings" if self.class_embedding is None else "is class-conditional"
            given = "no class_labels" if class_labels is None else "class_labels"
            raise ValueError(f"This model {state}, but {given} were given.")
        if self.class_embedding is not None:
            temb = temb + self.class_embedding(class_labels)
        return temb


def _encoder(
    settings: BlockSettings,
    entry_widths: Sequence[int],
    widths: Sequence[int],
    layers: Sequence[int],
    has_attention: Sequence[bool],
) -> nn.ModuleList:
    """Encoder stages, fine to coarse; all but the coarsest end in a downsampler."""
    last = len(widths) - 1
    return nn.ModuleList(
        EncoderStage(settings, entry, width, num_layers, attention, downsample=stage < last)
        for stage, (entry, width, num_layers, attention) in enumerate(zip(entry_widths, widths, layers, has_attention))
    )


def _decoder(
    settings: BlockSettings,
    entry_widths: Sequence[int],
    widths: Sequence[int],
    layers: Sequence[int],
    has_attention: Sequence[bool],
    decoder_exit: str,
) -> nn.ModuleList:
    """Decoder stages, coarse to fine; all but the finest end in an upsampler."""
    from_below = [*widths[1:], widths[-1]]  # width of what comes up
    stages = nn.ModuleList()
    for stage in reversed(range(len(widths))):
        skip_channels = [widths[stage]] * layers[stage] + [entry_widths[stage]]
        if stage == 0 and decoder_exit == "early":
            skip_channels.pop()  # no route ever runs this block
        stages.append(
            DecoderStage(
                settings, from_below[stage], widths[stage], skip_channels, has_attention[stage], upsample=stage > 0
            )
        )
    return stages


def _entry_adapters(base: int, widths: Sequence[int]) -> nn.ModuleDict:
    """1x1 convolutions base -> width, keyed by width; stages of equal width share one (as published)."""
    return nn.ModuleDict({str(w): nn.Conv2d(base, w, kernel_size=1) for w in dict.fromkeys(widths) if w != base})


def _exit_adapters(base: int, widths: Sequence[int]) -> nn.ModuleDict:
    """1x1 convolutions width -> base, keyed by width; stages of equal width share one (as published)."""
    return nn.ModuleDict({str(w): nn.Conv2d(w, base, kernel_size=1) for w in dict.fromkeys(widths) if w != base})


def _adapt(adapters: nn.ModuleDict, width: int, x: torch.Tensor) -> torch.Tensor:
    """Apply the adapter of `width`, if that width differs from the base."""
    return adapters[str(width)](x) if str(width) in adapters else x


def _check_architecture(
    widths: Sequence[int],
    layers: Sequence[int],
    has_attention: Sequence[bool],
    num_heads: int,
    num_groups: int,
    decoder_exit: str,
) -> None:
    """Raise a ValueError that names the first setting that cannot be built."""
    if len(layers) != len(widths):
        raise ValueError(f"layers_per_block needs one number or one per stage ({len(widths)}), got {list(layers)}.")
    if min(layers) < 1:
        raise ValueError(f"layers_per_block must be at least 1, got {list(layers)}.")
    if decoder_exit not in DECODER_EXITS:
        raise ValueError(f"decoder_exit must be one of {', '.join(DECODER_EXITS)}, got {decoder_exit!r}.")
    if num_heads < 1 or num_groups < 1:
        raise ValueError(
            f"num_attention_heads and norm_num_groups must be at least 1, got {num_heads} and {num_groups}."
        )
    for width, attention in zip(widths, [*has_attention[:-1], True]):  # the middle always has attention
        if width % num_groups:
            raise ValueError(f"Widths must be divisible by norm_num_groups={num_groups}, got {width}.")
        if attention and width % num_heads:
            raise ValueError(
                f"Widths with attention must be divisible by num_attention_heads={num_heads}, got {width}."
            )
