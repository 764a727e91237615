"""The settings that every training run has, whatever it trains."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal, TypeVar

from ..commands.bounds import above_zero, at_least
from ..commands.errors import UsageError
from ..operators.sizes import Size
from .power_average import WIDEST

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
class DataSettings:
    """What is learned, where it goes, and for how long.

    Parameters
    ----------
    res : int or list of int
        The full resolution in pixels: one side, or [height, width].
    data : str
        digits, folder:PATH, npz:PATH, celeba:PATH, imagenet:PATH, prepared:DIR, hub:NAME, hub-stream:NAME,
        wds:PATTERN, calpha:ALPHA, discs or sines.
    out : str
        The folder of the run, for the pipeline, checkpoints, samples and logs.
    max_steps : int, optional
        The number of training steps. Default: the model's recipe.
    max_minutes : float, optional
        Stop after this many minutes of training, as if asked to: with a checkpoint, from which --resume continues.
    channels : int
        3 for colour, 1 for grey.
    """

    res: int | list[int]
    data: str
    out: str
    max_steps: int | None = at_least(1, None)
    max_minutes: float | None = above_zero(None)
    channels: int = 3

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


@dataclass
class RunConfig(DataSettings):
    """How a run trains, logs, saves and continues. A kind of model adds its own settings, and fills in its recipe.

    Parameters
    ----------
    global_batch_size : int, optional
        Images per optimizer step, on all processes together. Default: the model's recipe.
    micro_batch_size : int, optional
        At most this many images of a process go through the network at once: less memory, the same gradients.
    learning_rate : float, optional
        The learning rate of AdamW. Default: the model's recipe.
    lr_scheduler : str
        How the learning rate changes, by diffusers' names. All but constant reach zero at max_steps.
    lr_warmup_steps : int
        Steps over which the learning rate rises linearly from zero.
    weight_decay : float
        The weight decay of AdamW.
    max_grad_norm : float
        Gradients are clipped to this norm. 0 turns it off.
    ema_decays : list of float
        Largest decays of the weights' moving averages, which warm up as 1 - (1 + step)^-0.75. The first is the one
        that is sampled and saved as the pipeline.
    posthoc_widths : list of float
        Store further averages at every save, power functions of these widths relative to the length of training, of
        which any width can be made afterwards (python -m ssd.training.posthoc_ema): two, such as [0.05, 0.1].
    ema_on_cpu : bool
        Keep the averages in main memory, which costs a copy per step.
    random_flip : bool
        Flip half of the images left to right.
    init_from : str, optional
        A pipeline folder whose weights the network starts from.
    mixed_precision : str
        The autocast of the network. auto is the launcher's (accelerate config) if it has one, else bf16 on GPUs that
        have it, else no.
    gradient_checkpointing : bool
        Recompute activations in the backward pass, for less memory and more time.
    compile : bool
        torch.compile the network; the log says how long it took.
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
    num_valid : int
        Hold out this many images, the same for every seed, and measure them. 0 is none.
    valid_every : int
        Steps between measurements of the held-out images, with the averaged weights.
    sample_every : int
        Steps between sample grids of the averaged weights. 0 is never.
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
        Print the configuration, the network and what would be written; then stop.
    """

    global_batch_size: int | None = at_least(1, None)
    micro_batch_size: int | None = at_least(1, None)
    learning_rate: float | None = above_zero(None)
    lr_scheduler: Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"] = "constant"
    lr_warmup_steps: int = at_least(0, 0)
    weight_decay: float = at_least(0, 0.0)
    max_grad_norm: float = at_least(0, 0.0)
    ema_decays: list[float] = field(default_factory=lambda: [0.9999])
    posthoc_widths: list[float] = field(default_factory=list)
    ema_on_cpu: bool = False
    random_flip: bool = True
    init_from: str | None = None
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    channels_last: bool = False
    seed: int = at_least(0, 0)
    cpu_threads: int | None = at_least(1, None)
    num_workers: int = at_least(0, 4)
    log_every: int = at_least(1, 50)
    num_valid: int = at_least(0, 0)
    valid_every: int = at_least(1, 5000)
    sample_every: int = at_least(0, 5000)
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
        require("res", self.res, len(sides) in (1, 2) and min(sides) >= 1, "one side or [height, width], at least 1")
        require("channels", self.channels, self.channels in (1, 3), "3 for colour or 1 for grey")
        for item in fields(self):
            value, bound = getattr(self, item.name), item.metadata.get("bound")
            if bound is not None and value is not None:
                require(item.name, value, bound.holds(value), bound.text)
        require("ema_decays", self.ema_decays, len(self.ema_decays) > 0, "at least one number")
        for decay in self.ema_decays:
            require("ema_decays", decay, 0 <= decay < 1, "in [0, 1)")
        for width in self.posthoc_widths:
            require("posthoc_widths", width, 0 < width < WIDEST, f"in (0, {WIDEST:.4f})")
        require("seed", self.seed, self.seed < 2**63, "below 2^63")
        require("out", repr(self.out), bool(self.out), "a folder")

    @property
    def batches_per_step(self) -> int:
        """Batches that share the images of an optimizer step."""
        return 1

    @property
    def has_routes(self) -> bool:
        """Whether a batch may leave a part of the network unused, which has to be searched for."""
        return False

    @property
    def unsharded(self) -> str | None:
        """What cannot be sharded by FSDP, in words; None where the network can."""
        return None


def filled(value: T | None) -> T:
    """A setting whose default depends on others, after it was filled in."""
    assert value is not None
    return value


def require(name: str, value: object, holds: bool, allowed: str) -> None:
    """Raise a `UsageError` that says what --name must be, unless it is."""
    if not holds:
        raise UsageError(f"--{name} must be {allowed}, got {value}.")


def images_per_batch(config: RunConfig, num_processes: int) -> int:
    """Images of one process in one batch, at the finest level.

    Raises
    ------
    UsageError
        When --global_batch_size cannot be shared equally.
    """
    parts = num_processes * config.batches_per_step
    images = filled(config.global_batch_size)
    if images % parts:
        shared = f"{num_processes} processes" + (
            f" and {config.batches_per_step} routes per step" if parts > num_processes else ""
        )
        raise UsageError(
            f"--global_batch_size {config.global_batch_size} cannot be shared equally by {shared}: use a multiple of "
            f"{parts}, or another number of processes."
        )
    return images // parts
