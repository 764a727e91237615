"""From settings to the process and the network that they describe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from flexi_unet import FlexiUNet2DModel, ResizedUNet2DModel

from ..commands.errors import UsageError
from ..data.sizes import parse_size
from ..operators.sizes import Size
from ..process.resolution import pyramid
from ..schedulers.base import ProcessScheduler
from ..scheduling_blurring import BlurringScheduler
from ..scheduling_corrective_noise import CorrectiveNoiseScheduler
from ..scheduling_ssd import SSDScheduler
from .config import TrainConfig, explicit_resolutions
from .networks import resized_unet_of
from .run_config import filled

BASE_CHANNELS = 128
CHANNEL_MULTIPLIERS: dict[int, tuple[float, ...]] = {
    32: (1, 2, 4),
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
    1024: (0.5, 0.5, 1, 1, 2, 2, 4, 4),
}
"""Widths of the stages in units of `BASE_CHANNELS`, fine to coarse, by full resolution (the paper's table)."""


def stage_widths(config: TrainConfig) -> tuple[int, ...]:
    """Widths of the network's stages, fine to coarse: as configured, or the paper's for the next smaller resolution."""
    if config.block_out_channels is not None:
        return tuple(config.block_out_channels)
    known = [side for side in CHANNEL_MULTIPLIERS if side <= max(config.size)]
    if not known:
        raise UsageError(
            f"There are no default widths for --res {config.res}, only from {min(CHANNEL_MULTIPLIERS)} pixels on: give "
            "--block_out_channels, for example '[64, 128, 128]'."
        )
    return tuple(int(BASE_CHANNELS * multiplier) for multiplier in CHANNEL_MULTIPLIERS[max(known)])


def level_sizes(config: TrainConfig) -> list[Size]:
    """(height, width) of the levels, fine to coarse."""
    sizes = explicit_resolutions(config)
    return pyramid(config.size, filled(config.levels)) if sizes is None else [parse_size(size) for size in sizes]


def build_scheduler(config: TrainConfig) -> ProcessScheduler:
    """The diffusion process that `config` describes."""
    check_combinations(config)
    prediction_type = str(config.prediction_type)
    if config.process == "blurring":
        return BlurringScheduler(
            sample_size=config.sample_size,
            blur_sigma_max=float(config.blur_sigma_max or 0),
            prediction_type=prediction_type,
        )
    sizes = explicit_resolutions(config)
    if sizes is None:
        _check_levels(config)
    if config.resolution_schedule == "data" and config.switches is None:
        raise UsageError(
            "--resolution_schedule data is measured when a training run begins: python -m ssd.analysis.switches says "
            "what it would be, for --switches."
        )
    levels: dict[str, Any] = {
        "sample_size": config.sample_size,
        "num_levels": config.levels,
        "downsample_kernel": config.downsample_kernel,
        "prediction_type": prediction_type,
    }
    if prediction_type == "preconditioned" and config.data_moments is None:
        raise UsageError("--prediction_type preconditioned measures its --data_moments when a training run begins.")
    if config.resolution_schedule != "data":
        levels |= {
            "resolution_schedule": config.resolution_schedule,
            "resolution_gamma": config.resolution_gamma,
        }
    if config.process == "corrective_noise":
        return CorrectiveNoiseScheduler(**levels)
    return SSDScheduler(
        **levels,
        blur_sigma_max=config.blur_sigma_max,
        resolutions=sizes,
        variance_type=config.variance_type,
        switches=config.switches,
        switch_jitter=config.switch_jitter,
        level_gain=config.level_gain,
        data_moments=config.data_moments,
        handover_snr=config.handover_snr,
    )


def build_unet(config: TrainConfig, class_names: Sequence[str] | None = None) -> FlexiUNet2DModel | ResizedUNet2DModel:
    """The network that `config` describes, with new weights; the last of its class embeddings is "no class"."""
    layers = config.layers_per_block
    classes: dict[str, Any] = {}
    if class_names:
        classes = {"id2label": dict(enumerate(class_names)), "no_class_label": len(class_names)}
        classes["num_class_embeds"] = len(class_names) + 1
    if config.network == "resized_unet":
        if not isinstance(layers, int):
            raise UsageError(f"--network resized_unet has one --layers_per_block for all stages, got {layers}.")
        return resized_unet_of(
            config.sample_size,
            stage_widths(config),
            channels=config.channels,
            layers_per_block=layers,
            attention_resolutions=config.attention_resolutions,
            num_attention_heads=config.num_attention_heads,
            norm_num_groups=config.norm_num_groups,
            dropout=config.dropout,
            **classes,
        )
    return FlexiUNet2DModel(
        sample_size=config.sample_size,
        in_channels=config.channels,
        out_channels=config.channels,
        block_out_channels=stage_widths(config),
        layers_per_block=layers if isinstance(layers, int) else tuple(layers),
        attention_resolutions=tuple(config.attention_resolutions),
        num_attention_heads=config.num_attention_heads,
        norm_num_groups=config.norm_num_groups,
        dropout=config.dropout,
        decoder_exit=config.decoder_exit,
        patch_size=config.patch_size,
        downsample_type=config.downsample_type,
        **classes,
        time_embed_channels=BASE_CHANNELS if config.block_out_channels is None else None,
    )


def check_combinations(config: TrainConfig) -> None:
    """Raise a `UsageError` for settings that do not go together; the process checks what is its own."""
    if config.process == "blurring" and config.levels != 1:
        raise UsageError(
            f"--process blurring has one resolution, got {config.levels} levels: use --levels 1, or --process "
            "scale_space with --blur_sigma_max for blur and several resolutions."
        )
    if config.process == "corrective_noise" and explicit_resolutions(config):
        raise UsageError("--process corrective_noise halves images from level to level: use --levels, not sizes.")
    if config.process == "corrective_noise" and config.blur_sigma_max:
        raise UsageError("--process corrective_noise has no blur: leave --blur_sigma_max out.")
    moving = {
        "switches": config.switches is not None,
        "switch_jitter": config.switch_jitter > 0,
        "level_gain": config.level_gain != 1,
        "resolution_schedule data": config.resolution_schedule == "data",
    }
    given = [name for name, holds in moving.items() if holds]
    if config.process != "scale_space" and given:
        raise UsageError(f"--{given[0]} is for --process scale_space, got {config.process}.")
    if config.process != "scale_space" and config.prediction_type == "preconditioned":
        raise UsageError(f"--prediction_type preconditioned is for --process scale_space, got {config.process}.")
    if config.process != "scale_space" and config.variance_type != "fixed_small":
        raise UsageError(f"--variance_type {config.variance_type} is for --process scale_space with one level.")
    mean = (config.data_moments or {}).get("mean")
    if mean is not None and len(mean) != config.channels:
        raise UsageError(
            f"--data_moments has the mean of {len(mean)} channels, but images have --channels {config.channels}: leave "
            "it out to measure it."
        )


def _check_levels(config: TrainConfig) -> None:
    """Raise a `UsageError` for more levels than the image can be halved or Flexi-UNet has stages."""
    height, width = config.size
    levels, stages = int(config.levels or 1), len(stage_widths(config))
    halvings = (math.gcd(height, width) & -math.gcd(height, width)).bit_length() - 1
    most = halvings + 1 if config.network == "resized_unet" else min(stages, halvings + 1)
    if levels > most:
        raise UsageError(
            f"--levels {levels} is too many: at {height} x {width} pixels with a network of {stages} stages the "
            f"largest number of levels is {most}. Images may shrink by any step with --min_size and --size_step."
        )
