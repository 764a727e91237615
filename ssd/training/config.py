"""The training configuration, and the network and scheduler that it describes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flexi_unet import FlexiUNet2DModel

from ..commands.errors import UsageError
from ..commands.parser import CommandParser
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
        digits, folder:PATH, npz:PATH, celeba:PATH, imagenet:PATH, prepared:DIR, hub:NAME, hub-stream:NAME or
        wds:PATTERN.
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
        Images per process and batch.
    accumulate : int
        Batches per optimizer step; each draws its own route.
    level_batch_scale : float
        Every coarser level has batches this many times larger; 4 is about equal compute.
    learning_rate : float
        Of AdamW.
    learning_rate_schedule : str
        constant or cosine (to zero at max_steps).
    warmup_steps : int
        Steps over which the learning rate rises linearly.
    weight_decay : float
        Of AdamW.
    max_grad_norm : float
        Gradients are clipped to this norm; 0 is off.
    max_snr : float
        The loss weight is min(SNR(t), max_snr).
    transition_probability : float, optional
        Probability that a batch is a level change. Default: as t is uniform, the number of changes / 1000.
    importance_weights : bool
        With transition_probability: weight the loss so that its expectation stays the same.
    ema_decays : list of float
        Largest decays of the weights' moving averages, which warm up as 1 - (1 + step)^-0.75. The first is the one
        that is sampled and saved as the pipeline.
    ema_on_cpu : bool
        Keep the averages in main memory.
    random_flip : bool
        Flip half of the images left to right.
    class_conditional : bool
        Give the network the labels of the data.
    label_dropout : float
        How often a label is replaced by "no class", for classifier-free guidance.
    init_from : str, optional
        A pipeline folder whose weights the network starts from.
    mixed_precision : str
        no, bf16 or fp16 autocast of the network; auto is bf16 on GPUs that have it, else no. It is this setting, not
        the launcher's, that counts.
    gradient_checkpointing : bool
        Recompute activations in the backward pass: less memory, more time.
    compile : bool
        torch.compile the network, one graph per route; the log says how long it took.
    channels_last : bool
        Weights and activations in channels-last order.
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
        How many of the newest checkpoints stay.
    milestone_every : int
        Checkpoints at multiples of this stay for ever; 0 is none.
    max_bad_steps : int
        Steps with a loss or gradient that is not finite are skipped; so many in a row stop the run.
    tracker : str
        tensorboard, wandb or another of accelerate's trackers; none is none.
    crop_preset : str
        How pictures become squares: adm, ddim128 or sde140 (the latter two for CelebA).
    skip_bad_images : bool
        Replace images that cannot be read, and list them, instead of stopping.
    resume : bool
        Continue the run in `out`, if there is one.
    overwrite : bool
        Delete the run in `out` first, also where a config file says to resume.
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
    accumulate: int = 1
    level_batch_scale: float = 1.0
    learning_rate: float = 1e-4
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 0.0
    max_snr: float = 5.0
    transition_probability: float | None = None
    importance_weights: bool = True
    ema_decays: list[float] = field(default_factory=lambda: [0.9999])
    ema_on_cpu: bool = False
    random_flip: bool = True
    class_conditional: bool = False
    label_dropout: float = 0.1
    init_from: str | None = None
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    channels_last: bool = False
    seed: int = 0
    cpu_threads: int | None = None
    num_workers: int = 4
    log_every: int = 50
    sample_every: int = 5000
    sample_steps: int = 50
    save_every: int = 5000
    keep: int = 3
    milestone_every: int = 0
    max_bad_steps: int = 100
    tracker: str = "tensorboard"
    crop_preset: Literal["adm", "ddim128", "sde140"] = "adm"
    skip_bad_images: bool = False
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.max_steps is None:
            self.max_steps = 1_000_000 if self.res <= 64 else 300_000
        for name in _AT_LEAST_ONE:
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in _AT_LEAST_ZERO:
            _require(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        for name in ("learning_rate", "max_snr", "resolution_gamma", "level_batch_scale"):
            _require(name, getattr(self, name), getattr(self, name) > 0, "positive")
        for name in ("dropout", "label_dropout"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "in [0, 1)")
        _require("ema_decays", self.ema_decays, len(self.ema_decays) > 0, "at least one number")
        for decay in self.ema_decays:
            _require("ema_decays", decay, 0 <= decay < 1, "in [0, 1)")
        _require("seed", self.seed, self.seed < 2**63, "below 2^63")
        _require("out", repr(self.out), bool(self.out), "a folder")
        p = self.transition_probability
        _require("transition_probability", p, p is None or 0 < p < 1, "in (0, 1)")
        _require("cpu_threads", self.cpu_threads, self.cpu_threads is None or self.cpu_threads >= 1, "at least 1")

    @property
    def total_steps(self) -> int:
        """`max_steps` after its default was filled in."""
        assert self.max_steps is not None  # set in __post_init__
        return self.max_steps


_AT_LEAST_ONE = (
    *("res", "max_steps", "levels", "batch_size", "accumulate", "log_every", "sample_steps", "save_every", "keep"),
    "max_bad_steps",
)
_AT_LEAST_ZERO = (
    *("seed", "num_workers", "sample_every", "max_grad_norm", "weight_decay", "blur_sigma_max", "warmup_steps"),
    "milestone_every",
)


def _require(name: str, value: object, holds: bool, allowed: str) -> None:
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


def build_unet(config: TrainConfig, num_classes: int | None = None) -> FlexiUNet2DModel:
    """The network that `config` describes, with new weights; for `num_classes` labels it has one class more, "none"."""
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
        num_class_embeds=num_classes + 1 if num_classes else None,
        time_embed_channels=BASE_CHANNELS if config.block_out_channels is None else None,
    )


def load_weights(unet: FlexiUNet2DModel, model: str) -> None:
    """Start `unet` from the weights of a saved pipeline with the same architecture."""
    folder = Path(model) / "unet"
    if not (folder / "config.json").is_file():
        raise UsageError(f"--init_from {model} is no pipeline: give a folder with model_index.json and unet/.")
    weights = FlexiUNet2DModel.from_pretrained(folder).state_dict()
    own = unet.state_dict()
    wrong = [key for key, value in own.items() if key not in weights or weights[key].shape != value.shape]
    wrong += [key for key in weights if key not in own]
    if wrong:
        raise UsageError(
            f"--init_from {model} has another architecture: {len(wrong)} tensors differ, such as {sorted(wrong)[0]}. "
            "Use its widths and layers."
        )
    unet.load_state_dict(weights)


def _largest_number_of_levels(res: int) -> int:
    """How many levels `res` allows: one more than the times that it can be halved."""
    levels = 1
    while res % 2**levels == 0:
        levels += 1
    return levels
