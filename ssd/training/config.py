"""The training configuration, and the network and scheduler that it describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from flexi_unet import FlexiUNet2DModel

from ..commands.errors import UsageError
from ..commands.parser import CommandParser
from ..publishing.saving import load_unet
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


RENAMED = {
    "accumulate": "gradient_accumulation_steps",
    "learning_rate_schedule": "lr_scheduler",
    "warmup_steps": "lr_warmup_steps",
    "keep": "checkpoints_total_limit",
    "tracker": "report_to",
}
"""Settings under their names in version 0.1, which older runs have in their files."""


@dataclass(frozen=True)
class Bound:
    """What a number must be: a test, and its words for the message."""

    holds: Callable[[float], bool]
    text: str


def at_least(low: int, default: Any) -> Any:
    """A field whose value is at least `low`."""
    return field(default=default, metadata={"bound": Bound(lambda value: value >= low, f"at least {low}")})


def above_zero(default: float) -> Any:
    """A field with a positive value."""
    return field(default=default, metadata={"bound": Bound(lambda value: value > 0, "positive")})


def fraction(default: float) -> Any:
    """A field with a value in [0, 1)."""
    return field(default=default, metadata={"bound": Bound(lambda value: 0 <= value < 1, "in [0, 1)")})


@dataclass
class TrainConfig:
    """Settings of a training run. The defaults are the paper's recipe where it has one.

    Parameters
    ----------
    res : int
        The full resolution in pixels. Images are square.
    data : str
        digits, folder:PATH, npz:PATH, celeba:PATH, imagenet:PATH, prepared:DIR, hub:NAME, hub-stream:NAME or
        wds:PATTERN.
    out : str
        The folder of the run, for the pipeline, checkpoints, samples and logs.
    max_steps : int, optional
        The number of training steps. Default: the paper's, 1000000 up to 64 pixels, 300000 above.
    levels : int
        The number of resolutions. 1 is DDPM.
    resolution_schedule : str
        Which timesteps belong to which level. convex_decay is the paper's choice.
    resolution_gamma : float
        The shape of the resolution schedule.
    downsample_kernel : str
        How images shrink. bilinear is the paper's choice.
    blur_sigma_max : float
        The width in pixels of the blur that accumulates beside the noise. 0 is no blur.
    block_out_channels : list of int, optional
        The width of every stage, fine to coarse. Default: by resolution, base 128.
    layers_per_block : int or list of int
        Residual blocks per stage: one number for all, or one per stage, fine to coarse.
    attention_resolutions : list of int
        Stages of these sizes have attention.
    num_attention_heads : int
        The number of heads of every attention.
    norm_num_groups : int
        The number of groups of every group norm.
    dropout : float
        The dropout inside residual blocks, in [0, 1).
    decoder_exit : str
        Whether the exit stage leaves out its last block (early, as published) or runs it (full).
    batch_size : int
        Images per process and batch.
    gradient_accumulation_steps : int
        Batches per optimizer step. Each draws its own route.
    level_batch_scale : float
        Every coarser level has batches this many times larger; 4 is about equal compute.
    learning_rate : float
        The learning rate of AdamW.
    lr_scheduler : str
        How the learning rate changes, by diffusers' names. All but constant reach zero at max_steps.
    lr_warmup_steps : int
        Steps over which the learning rate rises linearly from zero.
    weight_decay : float
        The weight decay of AdamW.
    max_grad_norm : float
        Gradients are clipped to this norm. 0 turns it off.
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
        Keep the averages in main memory, which costs a copy per step.
    random_flip : bool
        Flip half of the images left to right.
    class_conditional : bool
        Give the network the labels of the data.
    num_classes : int, optional
        The number of classes in the data. Default: as many as occur, which for a stream takes a pass over its labels.
    label_column : str, optional
        The column of the labels, for hub:NAME with several.
    label_dropout : float
        How often a label is replaced by "no class", for classifier-free guidance.
    init_from : str, optional
        A pipeline folder whose weights the network starts from.
    mixed_precision : str
        The autocast of the network. auto is bf16 on GPUs that have it, else no. This setting counts, not the
        launcher's.
    gradient_checkpointing : bool
        Recompute activations in the backward pass, for less memory and more time.
    compile : bool
        torch.compile the network, one graph per route; the log says how long it took.
    channels_last : bool
        Keep weights and activations in channels-last order.
    seed : int
        The seed of everything random.
    cpu_threads : int, optional
        Threads per process when training on the CPU. Default: its cores, shared by the processes.
    num_workers : int
        Processes that load images. 0 loads them in the training process.
    log_every : int
        Steps between lines of log.csv. Between them the program never waits for the device.
    sample_every : int
        Steps between sample grids of the averaged weights. 0 is never.
    sample_steps : int
        The number of sampling steps for these grids.
    save_every : int
        Steps between checkpoints, each with the pipeline. The last step always saves.
    checkpoints_total_limit : int
        How many of the newest checkpoints stay.
    milestone_every : int
        Checkpoints at multiples of this stay, too. 0 is none.
    max_bad_steps : int
        A step with a gradient that is not finite is skipped. This many in a row stop the run.
    report_to : str
        Where the log goes beside log.csv: tensorboard, wandb, another of accelerate's trackers, or none.
    crop_preset : str
        How pictures become squares. ddim128 and sde140 are for CelebA.
    background : str
        The colour, by name or as #RRGGBB, over which transparent pictures are laid.
    skip_bad_images : bool
        Replace images that cannot be read, and list them, instead of stopping.
    allow_pipe : bool
        Let wds:pipe:COMMAND run its command in a shell.
    accept_new_data : bool
        Resume although the data changed since the checkpoint.
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
    max_steps: int | None = at_least(1, None)
    levels: int = at_least(1, 3)
    resolution_schedule: Literal["equal", "convex_decay", "sigmoid_like", "tanh_like"] = "convex_decay"
    resolution_gamma: float = above_zero(0.5)
    downsample_kernel: Literal["bilinear", "area", "bicubic", "lanczos3", "dct"] = "bilinear"
    blur_sigma_max: float = at_least(0, 0.0)
    block_out_channels: list[int] | None = None
    layers_per_block: int | list[int] = 2
    attention_resolutions: list[int] = field(default_factory=lambda: [16, 8])
    num_attention_heads: int = 4
    norm_num_groups: int = 32
    dropout: float = fraction(0.0)
    decoder_exit: Literal["early", "full"] = "early"
    batch_size: int = at_least(1, 32)
    gradient_accumulation_steps: int = at_least(1, 1)
    level_batch_scale: float = above_zero(1.0)
    learning_rate: float = above_zero(1e-4)
    lr_scheduler: Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"] = "constant"
    lr_warmup_steps: int = at_least(0, 0)
    weight_decay: float = at_least(0, 0.0)
    max_grad_norm: float = at_least(0, 0.0)
    max_snr: float = above_zero(5.0)
    transition_probability: float | None = None
    importance_weights: bool = True
    ema_decays: list[float] = field(default_factory=lambda: [0.9999])
    ema_on_cpu: bool = False
    random_flip: bool = True
    class_conditional: bool = False
    num_classes: int | None = at_least(1, None)
    label_column: str | None = None
    label_dropout: float = fraction(0.1)
    init_from: str | None = None
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    channels_last: bool = False
    seed: int = at_least(0, 0)
    cpu_threads: int | None = at_least(1, None)
    num_workers: int = at_least(0, 4)
    log_every: int = at_least(1, 50)
    sample_every: int = at_least(0, 5000)
    sample_steps: int = at_least(1, 50)
    save_every: int = at_least(1, 5000)
    checkpoints_total_limit: int = at_least(1, 3)
    milestone_every: int = at_least(0, 0)
    max_bad_steps: int = at_least(1, 100)
    report_to: str = "tensorboard"
    crop_preset: Literal["adm", "ddim128", "sde140"] = "adm"
    background: str = "white"
    skip_bad_images: bool = False
    allow_pipe: bool = False
    accept_new_data: bool = False
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.max_steps is None:
            self.max_steps = 1_000_000 if self.res <= 64 else 300_000
        _require("res", self.res, self.res >= 1, "at least 1")
        for item in fields(self):
            value, bound = getattr(self, item.name), item.metadata.get("bound")
            if bound is not None and value is not None:
                _require(item.name, value, bound.holds(value), bound.text)
        _require("ema_decays", self.ema_decays, len(self.ema_decays) > 0, "at least one number")
        for decay in self.ema_decays:
            _require("ema_decays", decay, 0 <= decay < 1, "in [0, 1)")
        _require("seed", self.seed, self.seed < 2**63, "below 2^63")
        _require("out", repr(self.out), bool(self.out), "a folder")
        p = self.transition_probability
        _require("transition_probability", p, p is None or 0 < p < 1, "in (0, 1)")

    @property
    def total_steps(self) -> int:
        """`max_steps` after its default was filled in."""
        assert self.max_steps is not None  # set in __post_init__
        return self.max_steps


def _require(name: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        raise UsageError(f"--{name} must be {allowed}, got {value}.")


def parse_train_config(arguments: list[str] | None = None, description: str = "") -> TrainConfig:
    """Read YAML files (`--config`) and flags, later ones over earlier ones; exit with 2 at an unknown key."""
    parser = CommandParser(description=description, renamed=RENAMED)
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


def build_unet(config: TrainConfig, class_names: Sequence[str] | None = None) -> FlexiUNet2DModel:
    """The network that `config` describes, with new weights; the last of its class embeddings is "no class"."""
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
        num_class_embeds=len(class_names) + 1 if class_names else None,
        id2label=dict(enumerate(class_names)) if class_names else None,
        time_embed_channels=BASE_CHANNELS if config.block_out_channels is None else None,
    )


def load_weights(unet: FlexiUNet2DModel, model: str) -> None:
    """Start `unet` from the weights of a saved pipeline with the same architecture."""
    weights = load_unet(model).state_dict()
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
