"""The settings of a training run of VDVAE or WS-VDVAE, with the published recipe as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from vdvae.layout import parse_blocks

from ...commands.bounds import above_zero, at_least
from ...commands.errors import UsageError
from ...commands.parser import CommandParser
from ..run_config import DataSettings, RunConfig, require

BETAS = (0.9, 0.9)
"""Of AdamW, as published."""

NEVER = -1.0
"""The --skip_threshold that skips no step."""


@dataclass
class VDVAESettings(DataSettings):
    """What VDVAE has of its own: the blocks of its two passes, the likelihood, and when a step is skipped.

    Parameters
    ----------
    enc_blocks : str
        The blocks of the bottom-up pass. 8x3 are three blocks at 8 pixels, 8d2 is one before 2 x 2 pooling.
    dec_blocks : str
        The blocks of the top-down pass. 8m4 first adds the enlarged state of 4 pixels. 8x2r3 are two blocks, applied in
        turn three times with the same weights: WS-VDVAE.
    width : int
        The channels of the state.
    custom_widths : dict, optional
        Resolution to channels where they differ; they must not grow with the resolution.
    latent_channels : int
        The channels of every latent.
    bottleneck_multiple : float
        The channels inside a block, in units of its width.
    no_bias_above : int
        Resolutions up to this one start from a learned state.
    likelihood : str
        The distribution of a pixel: a mixture of discretised logistics, a discretised Gaussian, or bernoulli for two
        levels.
    num_mixtures : int
        The components of the mixture.
    levels : int
        The grey levels of the likelihood. The digits at 8 pixels have 17.
    input_levels : int, optional
        The grey levels to which images are rounded, a multiple of --levels. Default: the same.
    input_shift : float, optional
        The encoder sees (grey level + input_shift) * input_scale. Default: the range [-1, 1].
    input_scale : float, optional
        See --input_shift.
    state_norm : str
        Divides the state by its norm after every block: unit is the paper's ablation, rms keeps the elements' scale.
    fourier_features : list of int
        For every n the encoder sees sin and cos of 2^n pi x, too.
    residual : bool
        Blocks and cells are added to the state; false is the paper's ablation.
    max_latent_blocks : int, optional
        At most so many cells have latents, evenly spaced.
    skip_threshold : float
        A step whose gradient has this norm or a larger one, before clipping, is skipped. -1 skips those alone that are
        not finite.
    sample_temperature : float
        Beside samples at temperature 1, draw a grid at this one.
    """

    enc_blocks: str = "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3"
    dec_blocks: str = "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21"
    width: int = at_least(1, 384)
    custom_widths: dict[int, int] | None = None
    latent_channels: int = at_least(1, 16)
    bottleneck_multiple: float = above_zero(0.25)
    no_bias_above: int = at_least(0, 64)
    likelihood: Literal["logistic_mixture", "bernoulli", "gaussian"] = "logistic_mixture"
    num_mixtures: int = at_least(1, 10)
    levels: int = at_least(2, 256)
    input_levels: int | None = at_least(2, None)
    input_shift: float | None = None
    input_scale: float | None = None
    state_norm: Literal["none", "unit", "rms"] = "none"
    fourier_features: list[int] = field(default_factory=list)
    residual: bool = True
    max_latent_blocks: int | None = at_least(1, None)
    skip_threshold: float = 400.0
    sample_temperature: float = at_least(0, 0.8)


@dataclass
class VDVAETrainConfig(RunConfig, VDVAESettings):
    """Settings of a training run. The defaults are the published recipe where it has one.

    Parameters
    ----------
    max_steps : int, optional
        The number of training steps. Default: 1000000.
    global_batch_size : int, optional
        Images per optimizer step, on all processes together. Default: 32, as published for CIFAR-10.
    learning_rate : float, optional
        The learning rate of AdamW, whose betas are 0.9 and 0.9. Default: 1.5e-4; 2e-4 is published for CIFAR-10.
    mixed_precision : str
        The autocast of the network, bf16 or no. auto is bf16 on GPUs that have it, else no.
    max_bad_steps : int
        This many skipped steps in a row stop the run.
    """

    lr_warmup_steps: int = at_least(0, 100)
    weight_decay: float = at_least(0, 0.01)
    max_grad_norm: float = at_least(0, 200.0)
    ema_decays: list[float] = field(default_factory=lambda: [0.999])
    random_flip: bool = False
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "no"

    def __post_init__(self) -> None:
        super().__post_init__()
        require("res", self.res, self.size[0] == self.size[1], "one side: images of VDVAE are square")
        for name in ("enc_blocks", "dec_blocks"):
            try:
                parse_blocks(getattr(self, name))
            except ValueError as error:
                raise UsageError(f"--{name}: {error}") from error
        threshold = self.skip_threshold
        require("skip_threshold", threshold, threshold > 0 or threshold == NEVER, "positive, or -1 for never")
        if self.mixed_precision == "fp16":
            raise UsageError("--mixed_precision fp16 cannot skip steps by their norm: use bf16 or no.")
        if self.compile:
            raise UsageError("--compile is not for VDVAE: leave it out.")
        self.max_steps = self.max_steps or 1_000_000
        self.global_batch_size = self.global_batch_size or 32
        self.learning_rate = self.learning_rate or 1.5e-4

    @property
    def model_arguments(self) -> dict[str, Any]:
        """The arguments of `VDVAEModel`."""
        names = (
            "enc_blocks",
            "dec_blocks",
            "width",
            "custom_widths",
            "latent_channels",
            "bottleneck_multiple",
            "no_bias_above",
            "likelihood",
            "num_mixtures",
            "levels",
            "input_levels",
            "input_shift",
            "input_scale",
            "state_norm",
            "residual",
            "max_latent_blocks",
        )
        own = {name: getattr(self, name) for name in names}
        return {
            "sample_size": self.size[0],
            "in_channels": self.channels,
            "fourier_features": tuple(self.fourier_features),
        } | own

    @property
    def has_routes(self) -> bool:
        """Whether some activations of the encoder have no cell that looks at them."""
        encoder, decoder = (
            {side for spec in parse_blocks(text) for side in (spec.resolution, spec.resolution // spec.pool)}
            for text in (self.enc_blocks, self.dec_blocks)
        )
        return self.max_latent_blocks is not None or encoder != decoder

    @property
    def unsharded(self) -> str | None:
        """VDVAE in the whole."""
        return "A VDVAE"


def parse_vdvae_config(arguments: list[str] | None = None, description: str = "") -> VDVAETrainConfig:
    """Read YAML files (`--config`) and flags, later ones over earlier ones; exit with 2 at an unknown key."""
    parser = CommandParser(description=description)
    parser.add_argument("--config", action="config", help="A YAML file, such as configs/vdvae/digits.yaml.")
    parser.add_class_arguments(VDVAETrainConfig)
    settings = parser.parse_args(arguments)
    settings.pop("config")
    return VDVAETrainConfig(**settings.as_dict())
