"""Settings of the study."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ...commands.errors import UsageError
from ...data.sizes import check_channels

KINDS = ("bf_unet", "linear", "ssd")

OURS = ("data", "res", "channels", "max_steps", "global_batch_size", "seed", "out", "resume", "overwrite", "dry_run")
"""Settings of train/train_ssd.py that the study decides."""

HOW_MUCH = ("sizes", "seeds", "seed", "jobs", "out")
"""Settings that say which rows there are, not what is in a row: a study goes on with others."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Settings of the study.

    Parameters
    ----------
    data : str
        The data set, as for training: digits, folder:PATH and so on; not a stream.
    res : int
        The side of the images in pixels.
    channels : int
        1 for grey, 3 for colour.
    sizes : list of int
        The numbers of training images N, each at most half of the images.
    denoiser : str
        bf_unet trains two bias-free UNets per row; ssd trains two models with train/train_ssd.py; linear fits two
        Wiener filters, which is exact and takes no time.
    steps : int
        Training steps, the same for all N.
    batch : int
        Images of a training step.
    lr : float
        The highest learning rate of a bias-free UNet.
    width : int
        Channels of the first block of a bias-free UNet.
    blocks : int
        How often a bias-free UNet halves the image.
    settings : dict
        Settings of train/train_ssd.py for the denoiser ssd, such as '{levels: 3, block_out_channels: [32, 64, 64]}'.
    seeds : int
        How many times all is done, with other images, weights, batches and noise.
    seed : int
        The first of the seeds.
    samples : int
        Samples of each denoiser.
    drop_duplicates : bool, optional
        Leave near duplicates out first. Default: yes, except for linear denoisers.
    jobs : int, optional
        Rows made at once, in processes of their own. Default: one per core for bf_unet, else 1.
    out : str
        The folder for the results. The same command goes on where it was interrupted.
    """

    data: str = "digits"
    res: int = 8
    channels: int = 1
    sizes: list[int] = field(default_factory=lambda: [1, 8, 64, 638])
    denoiser: Literal["bf_unet", "linear", "ssd"] = "bf_unet"
    steps: int = 2000
    batch: int = 32
    lr: float = 1e-2
    width: int = 16
    blocks: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: int = 3
    seed: int = 0
    samples: int = 256
    drop_duplicates: bool | None = None
    jobs: int | None = None
    out: str = "runs/generalization"

    def __post_init__(self) -> None:
        lowest = {"res": 1, "steps": 2, "batch": 1, "width": 1, "blocks": 1, "seeds": 1, "seed": 0, "samples": 2}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs must be at least 1, got {self.jobs}.")
        if not self.lr > 0:
            raise UsageError(f"--lr must be positive, got {self.lr}.")
        if not self.sizes or min(self.sizes) < 1:
            raise UsageError(
                f"--sizes must be numbers of images, each at least 1, such as '[1, 8, 64]', got {self.sizes}."
            )
        if self.settings and self.denoiser != "ssd":
            raise UsageError(f"--settings are of train/train_ssd.py, for --denoiser ssd, not {self.denoiser}.")
        given = [name for name in OURS if name in self.settings]
        if given:
            raise UsageError(f"--settings must not have {given[0]}, which the study sets: it is for the others.")
        check_channels(self.channels)

    @property
    def drops_duplicates(self) -> bool:
        """Whether near duplicates are left out."""
        return self.denoiser != "linear" if self.drop_duplicates is None else self.drop_duplicates

    @property
    def rows(self) -> list[tuple[int, int]]:
        """(N, seed) of every row, in order."""
        sizes = sorted(set(self.sizes))
        return [(size, seed) for seed in range(self.seed, self.seed + self.seeds) for size in sizes]

    @property
    def what(self) -> dict[str, Any]:
        """The settings that decide what is in a row."""
        return {name: value for name, value in asdict(self).items() if name not in HOW_MUCH}
