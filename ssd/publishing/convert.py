"""Convert a checkpoint of the paper's own code (prateksha/ScaleSpaceDiffusion) into a pipeline folder.

    python -m ssd.publishing.convert ema_0.9999_1000000.pt --levels 4 --out models/celeba64
    python -m ssd.publishing.convert ema.pt --levels 6 --adapter_copies averaged --out models/celeba256

The architecture is inferred from the shapes and the adapters' names. The levels, the resolution schedule and the
attention heads are not in the file: give those that the network was trained with. The folder loads with
ssd.SSDPipeline.from_pretrained, and its README.md says where the weights come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flexi_unet.modeling_flexi_unet import FlexiUNet2DModel

from ..commands.errors import exit_on_usage_error
from ..commands.files import file_sha256
from ..commands.parser import CommandParser
from ..pipeline_ssd import SSDPipeline
from ..scheduling_ssd import SSDScheduler
from .checkpoint_files import read_checkpoint
from .model_card import model_card
from .published_architecture import Weights
from .published_checkpoints import AdapterCopies, build_unet, convert_weights
from .saving import save_pipeline

LICENCE = (
    "The weights keep the licence of their source: see where the source file comes from. The conversion changes only "
    "their names and layout."
)


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Settings of the conversion command.

    Parameters
    ----------
    checkpoint : str
        The published file, .pt or .safetensors.
    levels : int
        The number of resolutions that the network was trained with.
    out : str
        The folder for the pipeline, new or empty.
    resolution_schedule : str
        The resolution schedule that the network was trained with.
    resolution_gamma : float
        The shape of the resolution schedule.
    num_attention_heads : int
        The number of attention heads.
    res : int, optional
        The full resolution in pixels. It is needed only where the file does not tell it.
    adapter_copies : str
        Which copy is used of an adapter that several resolutions share. equal: copies that differ are refused, as there
        can be in averaged weights. averaged: the one that holds the average. published: the one that the published code
        uses.
    """

    checkpoint: str
    levels: int
    out: str
    resolution_schedule: Literal["equal", "convex_decay", "sigmoid_like", "tanh_like"] = "convex_decay"
    resolution_gamma: float = 0.5
    num_attention_heads: int = 4
    res: int | None = None
    adapter_copies: AdapterCopies = "equal"


def main(arguments: list[str] | None = None) -> None:
    """The command; `arguments` default to those of the process."""
    parser = CommandParser(
        prog="python -m ssd.publishing.convert",
        description=__doc__,
        renamed={"schedule": "resolution_schedule", "gamma": "resolution_gamma", "heads": "num_attention_heads"},
    )
    parser.add_argument("checkpoint", type=str, help="The published file, .pt or .safetensors.")
    parser.add_class_arguments(ConvertConfig, skip={"checkpoint"})
    config = ConvertConfig(**parser.parse_args(arguments).as_dict())
    with exit_on_usage_error(ValueError, OSError):
        out = _check_out(config.out)
        weights, step = read_checkpoint(config.checkpoint)
        unet = _convert_for_command(config, weights)
        scheduler = SSDScheduler(
            sample_size=unet.config.sample_size,
            num_levels=config.levels,
            resolution_schedule=config.resolution_schedule,
            resolution_gamma=config.resolution_gamma,
        )
        pipeline = SSDPipeline(unet, scheduler)
        origin = _origin(config, step, unet.config.num_class_embeds)
    with exit_on_usage_error(OSError):
        save_pipeline(pipeline, out, model_card(pipeline, config.out, origin, LICENCE))
    print(f"wrote {out}/: load it with ssd.SSDPipeline.from_pretrained({config.out!r})")  # noqa: T201


def _check_out(out: str) -> Path:
    """The folder to write, which must not hold anything."""
    path = Path(out)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        kind = "is not empty" if path.is_dir() else "is a file"
        raise ValueError(f"--out {out} {kind}: give a new or an empty folder.")
    return path


def _convert_for_command(config: ConvertConfig, weights: Weights) -> FlexiUNet2DModel:
    """The network, after the checks that need its architecture; errors name the file."""
    try:
        unet_config, state_dict = convert_weights(
            weights, config.num_attention_heads, config.res, config.adapter_copies
        )
    except ValueError as error:
        raise ValueError(f"{config.checkpoint} cannot be converted. {error}") from error
    stages = len(unet_config["block_out_channels"])
    if not 1 <= config.levels <= stages:
        raise ValueError(
            f"--levels {config.levels} does not fit {config.checkpoint}: its network has {stages} stages, so 1 to "
            f"{stages} levels."
        )
    if unet_config["in_channels"] != unet_config["out_channels"]:
        raise ValueError(
            f"{config.checkpoint} predicts {unet_config['out_channels']} channels for images of "
            f"{unet_config['in_channels']} (learn_sigma): the process needs a network that predicts images alone."
        )
    return build_unet(unet_config, state_dict)


def _origin(config: ConvertConfig, step: int | None, num_classes: int | None) -> dict[str, str]:
    """Where the weights come from, for the model card."""
    facts = {
        "Source": "a checkpoint of https://github.com/prateksha/ScaleSpaceDiffusion, the paper's own code",
        "File": f"`{Path(config.checkpoint).name}`",
        "SHA-256 of the file": f"`{file_sha256(config.checkpoint)}`",
        "Training step": "not in the file" if step is None else str(step),
        "Converted by": "`python -m ssd.publishing.convert`",
    }
    if config.adapter_copies != "equal":
        facts["Copies of shared adapters"] = config.adapter_copies
    if num_classes:  # guided-diffusion never leaves the class out, so that no embedding stands for "no class"
        facts["Guidance"] = "not trained without a class: keep guidance_scale at 1"
    return facts


if __name__ == "__main__":
    main()
