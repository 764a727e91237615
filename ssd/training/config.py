"""The settings of a training run of Scale Space Diffusion, with the paper's recipe as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..commands.bounds import above_zero, at_least, fraction
from ..commands.errors import UsageError
from ..commands.parser import CommandParser
from .run_config import REMOVED, RENAMED, DataSettings, RunConfig, require


@dataclass
class SSDSettings(DataSettings):
    """What Scale Space Diffusion has of its own: process, network, routes, loss and classes.

    Parameters
    ----------
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
    routes_per_step : int
        The images of a step are shared by this many batches, each with a route of its own.
    level_batch_scale : float
        Every coarser level has batches this many times larger; 4 is about equal compute.
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
    small_images : str
        Pictures that are smaller than --res: upscale enlarges them, levels trains with them the levels that they fill,
        skip leaves them out.
    class_conditional : bool
        Give the network the labels of the data.
    num_classes : int, optional
        The number of classes in the data. Default: as many as occur, which for a stream takes a pass over its labels.
    label_column : str, optional
        The column of the labels, for hub:NAME with several.
    label_dropout : float
        How often a label is replaced by "no class", for classifier-free guidance.
    sample_steps : int
        The number of sampling steps for these grids. Default: 20 with second order, at least 3 per level; 100 for the
        other processes.
    """

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
    routes_per_step: int = at_least(1, 1)
    level_batch_scale: float = above_zero(1.0)
    loss: Literal["min_snr", "sqrt_snr", "simple"] = "min_snr"
    max_snr: float = above_zero(5.0)
    clipped_loss: bool = False
    transition_probability: float | None = None
    importance_weights: bool = True
    small_images: Literal["upscale", "levels", "skip"] = "upscale"
    class_conditional: bool = False
    num_classes: int | None = at_least(1, None)
    label_column: str | None = None
    label_dropout: float = fraction(0.1)
    sample_steps: int | None = at_least(1, None)


@dataclass
class TrainConfig(RunConfig, SSDSettings):
    """Settings of a training run. The defaults are the paper's recipe where it has one.

    Parameters
    ----------
    max_steps : int, optional
        The number of training steps. Default: the paper's, 1000000 up to 64 pixels, 300000 above.
    global_batch_size : int, optional
        Images per optimizer step, on all processes together. Default: the paper's, 128, and 64 above 128 pixels.
    learning_rate : float, optional
        The learning rate of AdamW. Default: the paper's, 1e-4, and 5e-5 above 128 pixels.
    compile : bool
        torch.compile the network, one graph per route; the log says how long it took.
    dry_run : bool
        Print the configuration, levels, parameters and GFLOPs, and what would be written; then stop.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require("switch_jitter", self.switch_jitter, self.switch_jitter <= 0.5, "in [0, 0.5]")
        p = self.transition_probability
        require("transition_probability", p, p is None or 0 < p < 1, "in (0, 1)")
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
    def batches_per_step(self) -> int:
        """`routes_per_step`."""
        return self.routes_per_step

    @property
    def has_routes(self) -> bool:
        """Whether a batch leaves the stages unused that its route does not pass."""
        return self.network == "flexi_unet" and self.levels != 1

    @property
    def unsharded(self) -> str | None:
        """The U-Net of diffusers."""
        return None if self.network == "flexi_unet" else f"--network {self.network}"


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
