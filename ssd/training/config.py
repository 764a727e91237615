"""The training configuration, and the network and scheduler that it describes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from flexi_unet import FlexiUNet2DModel

from ..cli import CommandParser
from ..errors import UsageError
from ..scheduling_ssd import SSDScheduler

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


@dataclass
class TrainConfig:
    """Settings of a training run. The defaults are the paper's recipe where it has one.

    Parameters
    ----------
    res : int
        Full resolution in pixels (square).
    data : str
        digits, folder:PATH or npz:PATH.
    out : str
        Folder of the run: pipeline, checkpoints, samples, logs.
    max_steps : int, optional
        Training steps. Default: the paper's, 1000000 up to 64 pixels, 300000 above.
    levels : int
        Number of resolutions; 1 is DDPM.
    resolution_schedule : str
        equal, convex_decay, sigmoid_like or tanh_like.
    resolution_gamma : float
        Shape of the resolution schedule.
    downsample_kernel : str
        bilinear (the paper's), area, bicubic, lanczos3 or dct.
    blur_sigma_max : float
        Width in pixels of the blur that accumulates beside the noise; 0 is none.
    block_out_channels : list of int, optional
        Width of every stage, fine to coarse. Default: by resolution, base 128.
    layers_per_block : int or list of int
        Residual blocks per stage, or one number per stage, fine to coarse.
    attention_resolutions : list of int
        Stage sizes with attention.
    num_attention_heads : int
        Heads of every attention.
    norm_num_groups : int
        Groups of every group norm.
    dropout : float
        In [0, 1).
    decoder_exit : str
        early (as published) or full: whether the exit stage runs its last block.
    batch_size : int
        Images per process and step.
    learning_rate : float
        Of AdamW.
    weight_decay : float
        Of AdamW.
    max_grad_norm : float
        Gradients are clipped to this norm; 0 is off.
    max_snr : float
        The loss weight is min(SNR(t), max_snr).
    ema_decay : float
        Largest decay of the weights' moving average; it warms up as 1 - (1 + step)^-0.75.
    random_flip : bool
        Flip half of the images left to right.
    mixed_precision : str
        no, bf16 or fp16 autocast of the network.
    seed : int
        Of everything random.
    cpu_threads : int, optional
        Threads per process when training on the CPU. Default: its cores, shared by the processes (the launcher
        alone would give each process one thread).
    num_workers : int
        Processes that load images; 0 loads in the training process.
    log_every : int
        Steps between lines of log.csv.
    sample_every : int
        Steps between sample grids of the EMA weights; 0 is never.
    sample_steps : int
        Sampling steps for these grids.
    save_every : int
        Steps between checkpoints and saved pipelines; the last step always saves.
    keep : int
        How many checkpoints stay.
    resume : bool
        Continue the run in `out`, if there is one.
    overwrite : bool
        Delete the run in `out` first.
    dry_run : bool
        Print the configuration, levels, parameters and GFLOPs, and what would be written; then stop.
    """

    res: int
    data: str
    out: str
    max_steps: int | None = None
    levels: int = 3
    resolution_schedule: Literal["equal", "convex_decay", "sigmoid_like", "tanh_like"] = "convex_decay"
    resolution_gamma: float = 0.5
    downsample_kernel: Literal["bilinear", "area", "bicubic", "lanczos3", "dct"] = "bilinear"
    blur_sigma_max: float = 0.0
    block_out_channels: list[int] | None = None
    layers_per_block: int | list[int] = 2
    attention_resolutions: list[int] = field(default_factory=lambda: [16, 8])
    num_attention_heads: int = 4
    norm_num_groups: int = 32
    dropout: float = 0.0
    decoder_exit: Literal["early", "full"] = "early"
    batch_size: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    max_grad_norm: float = 0.0
    max_snr: float = 5.0
    ema_decay: float = 0.9999
    random_flip: bool = True
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    seed: int = 0
    cpu_threads: int | None = None
    num_workers: int = 4
    log_every: int = 50
    sample_every: int = 5000
    sample_steps: int = 50
    save_every: int = 5000
    keep: int = 3
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.max_steps is None:
            self.max_steps = 1_000_000 if self.res <= 64 else 300_000
        for name in (
            "res",
            "max_steps",
            "levels",
            "batch_size",
            "log_every",
            "sample_steps",
            "save_every",
            "keep",
        ):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("seed", "num_workers", "sample_every", "max_grad_norm", "weight_decay", "blur_sigma_max"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        for name in ("learning_rate", "max_snr", "resolution_gamma"):
            _require(name, getattr(self, name), getattr(self, name) > 0, "positive")
        for name in ("dropout", "ema_decay"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "in [0, 1)")
        _require("cpu_threads", self.cpu_threads or 1, (self.cpu_threads or 1) >= 1, "at least 1")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite contradict each other: give one of them.")

    @property
    def total_steps(self) -> int:
        """`max_steps` after its default was filled in."""
        assert self.max_steps is not None  # set in __post_init__
        return self.max_steps


def _require(name: str, value: float, holds: bool, allowed: str) -> None:
    if not holds:
        raise UsageError(f"--{name} must be {allowed}, got {value}.")


def parse_train_config(arguments: list[str] | None = None, description: str = "") -> TrainConfig:
    """Read YAML files (`--config`) and flags, later ones over earlier ones; exit with 2 at an unknown key."""
    parser = CommandParser(description=description)
    parser.add_argument("--config", action="config", help="A YAML file of settings, such as configs/digits.yaml.")
    parser.add_class_arguments(TrainConfig)
    settings = parser.parse_args(arguments)
    settings.pop("config")
    return TrainConfig(**settings.as_dict())


def stage_widths(config: TrainConfig) -> tuple[int, ...]:
    """Widths of the network's stages, fine to coarse: as configured, or the paper's for the resolution."""
    if config.block_out_channels is not None:
        return tuple(config.block_out_channels)
    if config.res not in CHANNEL_MULTIPLIERS:
        known = ", ".join(map(str, CHANNEL_MULTIPLIERS))
        raise UsageError(
            f"There are no default widths for --res {config.res}, only for {known}: give --block_out_channels, "
            "for example '[64, 128, 128]'."
        )
    return tuple(int(BASE_CHANNELS * multiplier) for multiplier in CHANNEL_MULTIPLIERS[config.res])


def build_scheduler(config: TrainConfig) -> SSDScheduler:
    """The diffusion process that `config` describes."""
    stages = len(stage_widths(config))
    most = min(stages, _largest_number_of_levels(config.res))
    if config.levels > most:
        raise UsageError(
            f"--levels {config.levels} is too many: at {config.res} pixels with a network of {stages} stages the "
            f"largest number of levels is {most}."
        )
    return SSDScheduler(
        sample_size=config.res,
        num_levels=config.levels,
        resolution_schedule=config.resolution_schedule,
        resolution_gamma=config.resolution_gamma,
        downsample_kernel=config.downsample_kernel,
        blur_sigma_max=config.blur_sigma_max,
    )


def build_unet(config: TrainConfig) -> FlexiUNet2DModel:
    """The network that `config` describes, with new weights."""
    layers = config.layers_per_block
    widths = stage_widths(config)
    return FlexiUNet2DModel(
        sample_size=config.res,
        block_out_channels=widths,
        layers_per_block=layers if isinstance(layers, int) else tuple(layers),
        attention_resolutions=tuple(config.attention_resolutions),
        num_attention_heads=config.num_attention_heads,
        norm_num_groups=config.norm_num_groups,
        dropout=config.dropout,
        decoder_exit=config.decoder_exit,
        time_embed_channels=BASE_CHANNELS if config.block_out_channels is None else None,
    )


def _largest_number_of_levels(res: int) -> int:
    """How many levels `res` allows: one more than the times that it can be halved."""
    levels = 1
    while res % 2**levels == 0:
        levels += 1
    return levels
