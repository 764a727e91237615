"""The settings of a training run, with the paper's recipe as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal, TypeVar

from ..commands.bounds import above_zero, at_least, fraction
from ..commands.errors import UsageError
from ..commands.parser import CommandParser
from ..operators.sizes import Size

T = TypeVar("T")

RENAMED = {
    "learning_rate_schedule": "lr_scheduler",
    "warmup_steps": "lr_warmup_steps",
    "keep": "checkpoints_total_limit",
    "tracker": "report_to",
}
"""Settings under their names in version 0.1, which older runs have in their files."""

_BATCHES = "--global_batch_size counts the images of a step on all processes; "
REMOVED = {
    "batch_size": _BATCHES + "use it instead, times the number of processes",
    "accumulate": _BATCHES + "use --micro_batch_size to save memory, or --routes_per_step to mix routes in a step",
    "gradient_accumulation_steps": _BATCHES
    + "use --micro_batch_size to save memory, or --routes_per_step to mix routes in a step",
}
"""Settings that are gone -> what to do instead."""


@dataclass
class TrainConfig:
    """Settings of a training run. The defaults are the paper's recipe where it has one.

    Parameters
    ----------
    res : int or list of int
        The full resolution in pixels: one side, or [height, width].
    max_minutes : float, optional
        Stop after this many minutes of training, as if asked to: with a checkpoint, from which --resume continues.
    channels : int
        3 for colour, 1 for grey.
    data : str
        digits, folder:PATH, npz:PATH, celeba:PATH, imagenet:PATH, prepared:DIR, hub:NAME, hub-stream:NAME,
        wds:PATTERN, calpha:ALPHA, discs or sines.
    out : str
        The folder of the run, for the pipeline, checkpoints, samples and logs.
    max_steps : int, optional
        The number of training steps. Default: the paper's, 1000000 up to 64 pixels, 300000 above.
    process : str
        scale_space is the paper's; with one level it is DDPM. blurring is blurring diffusion as published.
        corrective_noise has several resolutions without scale space.
    levels : int, optional
        The number of resolutions, each half of the one before. 1 is DDPM. Default: 3, and 1 for blurring.
    resolutions : list, optional
        The sizes of all levels instead, fine to coarse, each a side or [height, width].
    min_size : int, optional
        Gradual downsizing instead: levels shrink by --size_step pixels down to a short side of this many.
    size_step : int
        Pixels per level of gradual downsizing.
    resolution_schedule : str
        Which timesteps belong to which level. convex_decay is the paper's choice. data measures it from the images.
    resolution_gamma : float
        The shape of the resolution schedule.
    switches : list of int, optional
        Instead of a schedule: the first timestep of every coarser level. Where data measured it, its result is here.
    switch_theta : float
        The signal-to-noise ratio of the finest details at which data leaves the full resolution.
    switch_jitter : float
        How far switches move from batch to batch, in [0, 0.5], as a share of the way to their neighbours. The model
        then samples with any such schedule (--switches).
    level_gain : float
        In 1..2, a factor of downsampling. 2 makes levels isometric, and halving no loss of signal against noise.
    downsample_kernel : str
        How images shrink. bilinear is the paper's choice.
    blur_sigma_max : float, optional
        The width in pixels of the blur that accumulates beside the noise. Default: no blur; 20 for blurring.
    prediction_type : str, optional
        What the network predicts where the image does not grow. preconditioned is what a linear estimate of the clean
        image leaves, everywhere. Default: the paper's, the clean image (sample), and the noise (epsilon) for blurring.
    data_moments : dict, optional
        mean and variances of the data, for preconditioned. Default: measured when the run begins; its result is here.
    handover_snr : float
        For preconditioned: above this signal-to-noise ratio the network corrects the linear estimate, below it predicts
        the clean image. 0 is the former everywhere.
    variance_type : str
        The variance of ancestral sampling steps: the posterior's (fixed_small), or with one level fixed_large.
    network : str
        flexi_unet runs the part that belongs to a resolution. resized_unet is a whole U-Net for every resolution.
    block_out_channels : list of int, optional
        The width of every stage, fine to coarse. Default: by resolution, base 128.
    layers_per_block : int or list of int
        Residual blocks per stage: one number for all, or one per stage, fine to coarse.
    attention_resolutions : list of int
        Stages of images of these sizes have attention; with patches their features are smaller.
    num_attention_heads : int
        The number of heads of every attention.
    norm_num_groups : int
        The number of groups of every group norm.
    dropout : float
        The dropout inside residual blocks, in [0, 1).
    patch_size : int
        The network's stages see images folded into patches of this side, p: p^2 times less arithmetic at the same
        widths. p^2 divides the finest width, and p the sides of the coarsest stage. 1: as published.
    downsample_type : str
        How features change size: by convolutions (conv, as published), or averaged and repeated (average).
    decoder_exit : str
        Whether the exit stage leaves out its last block (early, as published) or runs it (full).
    global_batch_size : int, optional
        Images per optimizer step, on all processes together. Default: the paper's, 128, and 64 above 128 pixels.
    micro_batch_size : int, optional
        At most this many images of a process go through the network at once: less memory, the same gradients.
    routes_per_step : int
        The images of a step are shared by this many batches, each with a route of its own.
    level_batch_scale : float
        Every coarser level has batches this many times larger; 4 is about equal compute.
    learning_rate : float, optional
        The learning rate of AdamW. Default: the paper's, 1e-4, and 5e-5 above 128 pixels.
    lr_scheduler : str
        How the learning rate changes, by diffusers' names. All but constant reach zero at max_steps.
    lr_warmup_steps : int
        Steps over which the learning rate rises linearly from zero.
    weight_decay : float
        The weight decay of AdamW.
    max_grad_norm : float
        Gradients are clipped to this norm. 0 turns it off.
    loss : str
        min_snr weights the error of the clean image by min(SNR(t), max_snr), sqrt_snr by the root of that, which lets
        coarse levels learn. simple weights every error by 1.
    max_snr : float
        The largest SNR that counts in these weights.
    clipped_loss : bool
        Train through the clipping of sampling: where the image is at the end of its range, as white paper is,
        predictions beyond it are right.
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
        The number of sampling steps for these grids. Default: 20 with second order, at least 3 per level; 100 for the
        other processes.
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

    res: int | list[int]
    data: str
    out: str
    max_steps: int | None = at_least(1, None)
    max_minutes: float | None = above_zero(None)
    channels: int = 3
    process: Literal["scale_space", "blurring", "corrective_noise"] = "scale_space"
    levels: int | None = at_least(1, None)
    resolutions: list[int | list[int]] | None = None
    min_size: int | None = at_least(1, None)
    size_step: int = at_least(1, 1)
    resolution_schedule: Literal["equal", "convex_decay", "sigmoid_like", "tanh_like", "data"] = "convex_decay"
    resolution_gamma: float = above_zero(0.5)
    switches: list[int] | None = None
    switch_theta: float = above_zero(0.01)
    switch_jitter: float = at_least(0, 0.0)
    level_gain: float = at_least(1, 1.0)
    downsample_kernel: Literal["bilinear", "area", "bicubic", "lanczos3", "dct"] = "bilinear"
    blur_sigma_max: float | None = at_least(0, None)
    prediction_type: Literal["sample", "epsilon", "v_prediction", "preconditioned"] | None = None
    data_moments: dict[str, list[float]] | None = None
    handover_snr: float = at_least(0, 0.0)
    variance_type: Literal["fixed_small", "fixed_large"] = "fixed_small"
    network: Literal["flexi_unet", "resized_unet"] = "flexi_unet"
    block_out_channels: list[int] | None = None
    layers_per_block: int | list[int] = 2
    attention_resolutions: list[int] = field(default_factory=lambda: [16, 8])
    num_attention_heads: int = 4
    norm_num_groups: int = 32
    dropout: float = fraction(0.0)
    patch_size: int = at_least(1, 1)
    downsample_type: Literal["conv", "average"] = "conv"
    decoder_exit: Literal["early", "full"] = "early"
    global_batch_size: int | None = at_least(1, None)
    micro_batch_size: int | None = at_least(1, None)
    routes_per_step: int = at_least(1, 1)
    level_batch_scale: float = above_zero(1.0)
    learning_rate: float | None = above_zero(None)
    lr_scheduler: Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"] = "constant"
    lr_warmup_steps: int = at_least(0, 0)
    weight_decay: float = at_least(0, 0.0)
    max_grad_norm: float = at_least(0, 0.0)
    loss: Literal["min_snr", "sqrt_snr", "simple"] = "min_snr"
    max_snr: float = above_zero(5.0)
    clipped_loss: bool = False
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
    sample_steps: int | None = at_least(1, None)
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
        sides = [self.res] if isinstance(self.res, int) else self.res
        _require("res", self.res, len(sides) in (1, 2) and min(sides) >= 1, "one side or [height, width], at least 1")
        _require("channels", self.channels, self.channels in (1, 3), "3 for colour or 1 for grey")
        for item in fields(self):
            value, bound = getattr(self, item.name), item.metadata.get("bound")
            if bound is not None and value is not None:
                _require(item.name, value, bound.holds(value), bound.text)
        _require("ema_decays", self.ema_decays, len(self.ema_decays) > 0, "at least one number")
        for decay in self.ema_decays:
            _require("ema_decays", decay, 0 <= decay < 1, "in [0, 1)")
        _require("seed", self.seed, self.seed < 2**63, "below 2^63")
        _require("out", repr(self.out), bool(self.out), "a folder")
        _require("switch_jitter", self.switch_jitter, self.switch_jitter <= 0.5, "in [0, 0.5]")
        p = self.transition_probability
        _require("transition_probability", p, p is None or 0 < p < 1, "in (0, 1)")
        self._fill_in_the_recipe()

    def _fill_in_the_recipe(self) -> None:
        """What the paper's tables 5 and 6 say where nothing was given, so that the whole configuration is on record."""
        blurring, side = self.process == "blurring", max(self.size)
        if self.max_steps is None:
            self.max_steps = 1_000_000 if side <= 64 else 300_000
        if self.global_batch_size is None:
            self.global_batch_size = 128 if side <= 128 else 64
        if self.learning_rate is None:
            self.learning_rate = 1e-4 if side <= 128 else 5e-5
        if self.prediction_type is None:
            self.prediction_type = "epsilon" if blurring else "sample"
        if self.blur_sigma_max is None:
            self.blur_sigma_max = 20.0 if blurring else 0.0
        sizes = explicit_resolutions(self)
        if self.levels is None:
            self.levels = len(sizes) if sizes else 1 if blurring else 3
        elif sizes and self.levels != len(sizes):
            raise UsageError(
                f"--levels {self.levels} does not agree with {len(sizes)} explicit resolutions: leave --levels out."
            )

    @property
    def total_steps(self) -> int:
        """`max_steps` after its default was filled in."""
        return filled(self.max_steps)

    @property
    def size(self) -> Size:
        """(height, width) of the full resolution."""
        return (self.res, self.res) if isinstance(self.res, int) else (self.res[0], self.res[-1])

    @property
    def sample_size(self) -> int | Size:
        """The full resolution as networks and schedulers write it: one number for a square."""
        return self.size[0] if self.size[0] == self.size[1] else self.size


def filled(value: T | None) -> T:
    """A setting whose default depends on others, after it was filled in."""
    assert value is not None
    return value


def _require(name: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        raise UsageError(f"--{name} must be {allowed}, got {value}.")


def images_per_batch(config: TrainConfig, num_processes: int) -> int:
    """Images of one process in one batch, at the finest level.

    Raises
    ------
    UsageError
        When --global_batch_size cannot be shared equally.
    """
    parts = num_processes * config.routes_per_step
    images = filled(config.global_batch_size)
    if images % parts:
        shared = f"{num_processes} processes" + (
            f" and {config.routes_per_step} routes per step" if parts > num_processes else ""
        )
        raise UsageError(
            f"--global_batch_size {config.global_batch_size} cannot be shared equally by {shared}: use a multiple of "
            f"{parts}, or another number of processes."
        )
    return images // parts


def explicit_resolutions(config: TrainConfig) -> list[int | list[int]] | None:
    """The sizes of --resolutions, or those that --min_size and --size_step ask for; None without either."""
    if config.resolutions is not None and config.min_size is not None:
        raise UsageError("--resolutions and --min_size both say how images shrink: give one of them.")
    if config.min_size is None:
        return config.resolutions
    short = min(config.size)
    if config.min_size > short:
        raise UsageError(f"--min_size must be at most the image's short side, {short}, got {config.min_size}.")
    sides = range(short, config.min_size - 1, -config.size_step)
    return [[round(length * side / short) for length in config.size] for side in sides]


def parse_train_config(arguments: list[str] | None = None, description: str = "") -> TrainConfig:
    """Read YAML files (`--config`) and flags, later ones over earlier ones; exit with 2 at an unknown key."""
    parser = CommandParser(description=description, renamed=RENAMED, removed=REMOVED)
    parser.add_argument("--config", action="config", help="A YAML file of settings, such as configs/digits.yaml.")
    parser.add_class_arguments(TrainConfig)
    settings = parser.parse_args(arguments)
    settings.pop("config")
    return TrainConfig(**settings.as_dict())
