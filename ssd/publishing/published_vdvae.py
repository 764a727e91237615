"""Convert a published VDVAE checkpoint (openai/vdvae) into a pipeline folder, which all commands for VDVAE take.

    python -m ssd.publishing.published_vdvae cifar10-seed0-model-ema.th --preset cifar10 --out models/cifar10
    python -m ssd.publishing.published_vdvae model-ema.th --hparams hparams.json --out models/own

The layout is not in the file: name one of the published ones (--preset), or give the settings that the network was
trained with (--hparams), a JSON file with the names of the published `hps.py`: image_size, width, zdim, enc_blocks, ..
The converted model has the published likelihood: with 5 bits (low_bit) its bits per dimension are 0.040 too good.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from vdvae import VDVAEModel
from vdvae.layout import BlockSpec, share_blocks
from vdvae.sizes import SIZES

from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.files import file_sha256
from ..commands.output_paths import check_output_folder
from ..commands.parser import CommandParser
from ..pipeline_vdvae import VDVAEPipeline
from .checkpoint_files import read_checkpoint
from .saving import save_pipeline
from .vdvae_card import vdvae_card

Weights = Mapping[str, torch.Tensor]

HPARAMS = {
    "image_size": "sample_size",
    "image_channels": "in_channels",
    "width": "width",
    "zdim": "latent_channels",
    "bottleneck_multiple": "bottleneck_multiple",
    "num_mixtures": "num_mixtures",
    "no_bias_above": "no_bias_above",
    "enc_blocks": "enc_blocks",
    "dec_blocks": "dec_blocks",
}
"""Published setting -> argument of `VDVAEModel`."""

LICENCE = "The weights keep the licence of their source."

CELL_PARTS = {"posterior": "enc", "prior": "prior", "project": "z_proj", "block": "resnet"}
"""Our part of a cell -> its published name."""


def config_from_hparams(
    hparams: Mapping[str, Any],
    input_shift: float | None = None,
    input_scale: float | None = None,
    shared: bool = False,
) -> dict[str, Any]:
    """Arguments of `VDVAEModel` from the settings of the published code.

    Parameters
    ----------
    hparams : mapping of str to value
        With at least image_size, width, zdim, enc_blocks and dec_blocks. Settings of the training are ignored.
    input_shift, input_scale : float, optional
        What the data set's images are shifted and scaled by.
    shared : bool
        Whether every `RESxN` is one block that is applied N times.

    Raises
    ------
    ValueError
        For a setting that is missing.
    """
    missing = [name for name in ("image_size", "width", "zdim", "enc_blocks", "dec_blocks") if name not in hparams]
    if missing:
        raise ValueError(f"The published settings lack {', '.join(missing)}.")
    config = {ours: hparams[name] for name, ours in HPARAMS.items() if name in hparams}
    if shared:
        config |= {name: share_blocks(config[name]) for name in ("enc_blocks", "dec_blocks")}
    pairs = [pair.split(":") for pair in hparams.get("custom_width_str", "").split(",") if pair]
    config["custom_widths"] = {int(side): int(channels) for side, channels in pairs} or None
    levels = 32 if hparams.get("low_bit") else 256
    shift = {"input_shift": input_shift, "input_scale": input_scale}
    return config | shift | {"levels": levels, "input_levels": 256, "likelihood_compat": "published"}


def published_names(model: VDVAEModel) -> dict[str, list[str]]:
    """Our name of every weight -> its published names, of which there are several where a block is shared.

    A published name counts the blocks as they are applied: `decoder.dec_blocks.3.enc.c1.weight`.
    """
    encoder = _positions(model.encoder.specs)
    decoder = _positions(model.cells)
    biases = {side: index for index, side in enumerate(sorted(map(int, model.decoder.initial_states)))}

    def names(ours: str) -> list[str]:
        room, _, rest = ours.partition(".")
        if room == "out_conv":
            return [f"decoder.out_net.{ours}"]
        kind, _, tail = rest.partition(".")
        number, _, tail = tail.partition(".")
        if kind == "blocks":
            return [f"encoder.enc_blocks.{position}.{tail}" for position in encoder[int(number)]]
        if kind == "cells":
            part, _, weight = tail.partition(".")
            return [f"decoder.dec_blocks.{place}.{CELL_PARTS[part]}.{weight}" for place in decoder[int(number)]]
        return [f"decoder.bias_xs.{biases[int(number)]}"] if kind == "initial_states" else [ours]

    return {ours: names(ours) for ours in model.state_dict()}


def convert_vdvae(weights: Weights, config: Mapping[str, Any]) -> VDVAEModel:
    """The network of a published state dict, float32, in evaluation mode; it shares no memory with `weights`.

    Parameters
    ----------
    weights : mapping of str to torch.Tensor
        The published state dict. Names may begin with `module.`; of a shared block all copies, or the first alone, are
        there.
    config : mapping
        Arguments of `VDVAEModel`.

    Raises
    ------
    ValueError
        For names that are missing or unknown, shapes that do not fit, or copies of a shared block that differ.
    """
    weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    with torch.device("meta"):  # no time spent on weights that are replaced at once
        model = VDVAEModel(**config)
    names, shapes = published_names(model), model.state_dict()
    _check(weights, names, {ours: tuple(tensor.shape) for ours, tensor in shapes.items()})
    state_dict = {
        ours: weights[copies[0]].to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for ours, copies in names.items()
    }
    model.load_state_dict(state_dict, assign=True)
    return model.eval()


def _positions(specs: Sequence[BlockSpec]) -> dict[int, list[int]]:
    """Number of every block -> the places where it is applied."""
    places: dict[int, list[int]] = {}
    for place, spec in enumerate(specs):
        places.setdefault(spec.module, []).append(place)
    return places


def _check(weights: Weights, names: Mapping[str, list[str]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise a ValueError of one line unless `weights` are exactly those of the network."""
    known = {copy for copies in names.values() for copy in copies}
    unknown = [name for name in weights if name not in known]
    missing = [copies[0] for copies in names.values() if copies[0] not in weights]
    if missing or unknown:
        parts = [
            f"{word} {_some(found)}" for word, found in (("lacks", missing), ("has the unknown", unknown)) if found
        ]
        raise ValueError(f"The file does not fit the layout: it {' and '.join(parts)}. Was another preset meant?")
    for ours, copies in names.items():
        first = weights[copies[0]]
        if tuple(first.shape) != shapes[ours]:
            raise ValueError(f"The file does not fit: {copies[0]} is {tuple(first.shape)} and not {shapes[ours]}.")
        for copy in copies[1:]:
            if copy in weights and not torch.equal(weights[copy], first):
                raise ValueError(f"{copies[0]} and {copy} should be the same block of shared weights, but they differ.")


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


@dataclass(frozen=True, kw_only=True)
class ConvertVDVAEConfig:
    """Settings of the conversion command.

    Parameters
    ----------
    checkpoint : str
        The published file, .th.
    out : str
        The folder for the model, new or empty.
    preset : str, optional
        The published layout: cifar10, imagenet32 or imagenet64.
    hparams : str, optional
        A JSON file with the settings of the published code, instead of --preset.
    shared : bool
        With --hparams: every RESxN of its layout is one block that is applied N times.
    input_shift : float, optional
        With --hparams: what is added to the grey levels 0..255 of an input. By default they become [-1, 1].
    input_scale : float, optional
        With --hparams: what the shifted grey levels are multiplied by.
    """

    checkpoint: str
    out: str
    preset: Literal["cifar10", "imagenet32", "imagenet64"] | None = None
    hparams: str | None = None
    shared: bool = False
    input_shift: float | None = None
    input_scale: float | None = None

    def __post_init__(self) -> None:
        if (self.preset is None) == (self.hparams is None):
            raise UsageError("Give the layout of the network: either --preset or --hparams.")
        if self.preset is not None and (self.shared or self.input_shift is not None or self.input_scale is not None):
            raise UsageError("--shared, --input_shift and --input_scale belong to --hparams; a preset has its own.")

    def model_config(self) -> dict[str, Any]:
        """Arguments of `VDVAEModel`."""
        if self.hparams is None:
            return SIZES[str(self.preset)] | {"likelihood_compat": "published"}
        try:
            hparams = json.loads(Path(self.hparams).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"--hparams {self.hparams} is not a JSON file: {error}.") from error
        if not isinstance(hparams, dict):
            raise UsageError(f"--hparams {self.hparams} must hold names and values.")
        return config_from_hparams(hparams, self.input_shift, self.input_scale, self.shared)


def main(arguments: list[str] | None = None) -> None:
    """The command; `arguments` default to those of the process."""
    parser = CommandParser(prog="python -m ssd.publishing.published_vdvae", description=__doc__)
    parser.add_argument("checkpoint", type=str, help="The published file, .th.")
    parser.add_class_arguments(ConvertVDVAEConfig, skip={"checkpoint"})
    with exit_on_usage_error(ValueError, OSError):
        config = ConvertVDVAEConfig(**parser.parse_args(arguments).as_dict())
        out = Path(config.out)
        check_output_folder(out, "--out")
        if out.exists() and any(out.iterdir()):
            raise UsageError(f"--out {out} is not empty: give a new or an empty folder.")
        weights, _ = read_checkpoint(config.checkpoint)
        try:
            model = convert_vdvae(weights, config.model_config())
        except ValueError as error:
            raise UsageError(f"{config.checkpoint} cannot be converted. {error}") from error
        pipeline = VDVAEPipeline(model)
        save_pipeline(pipeline, out, vdvae_card(pipeline, config.out, _origin(config), LICENCE))
    print(f"wrote {out}/: sample from it with  python sample/sample_vdvae.py --model {out}")  # noqa: T201


def _origin(config: ConvertVDVAEConfig) -> dict[str, str]:
    """Where the weights come from, for the card."""
    return {
        "Source": "a checkpoint of https://github.com/openai/vdvae",
        "File": f"`{Path(config.checkpoint).name}`, SHA-256 `{file_sha256(config.checkpoint)}`",
        "Layout": config.preset or Path(str(config.hparams)).name,
        "Converted by": "`python -m ssd.publishing.published_vdvae`, which changes only the names of the weights",
        "Bits": "as published, which with 5 bits are 0.040 per dimension too good",
    }


if __name__ == "__main__":
    main()
