"""A bias-free denoiser on the disk: weights as safetensors, and the network's arguments as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ...commands.errors import UsageError
from ...commands.files import whole_file, write_json
from .bias_free import BiasFreeCNN, BiasFreeDenoiser, BiasFreeUNet

WEIGHTS, DESCRIPTION = "denoiser.safetensors", "denoiser.json"
KINDS: dict[str, type[BiasFreeUNet] | type[BiasFreeCNN]] = {"bf_unet": BiasFreeUNet, "bf_cnn": BiasFreeCNN}
"""How networks are called in files and flags."""


def build_denoiser(kind: str, arguments: dict[str, Any]) -> BiasFreeDenoiser:
    """A network of one of `KINDS`."""
    return KINDS[kind](**arguments)


def save_denoiser(network: BiasFreeDenoiser, kind: str, arguments: dict[str, Any], folder: Path, **about: Any) -> None:
    """Write a network into `folder`, the description last; `about` is kept in it, too."""
    with whole_file(folder / WEIGHTS) as temporary:
        save_file({name: weight.contiguous() for name, weight in network.state_dict().items()}, temporary)
    write_json(folder / DESCRIPTION, {"kind": kind, "arguments": arguments, **about})


def load_denoiser(folder: str | Path) -> BiasFreeDenoiser:
    """A saved network, in evaluation mode.

    Raises
    ------
    UsageError
        When there is none in `folder`, or its files are damaged.
    """
    folder = Path(folder)
    if not (folder / DESCRIPTION).is_file() or not (folder / WEIGHTS).is_file():
        raise UsageError(f"{folder} holds no denoiser: {DESCRIPTION} and {WEIGHTS} are expected there.")
    try:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        network = build_denoiser(described["kind"], described["arguments"])
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"The denoiser in {folder} is damaged: {error}") from error
    return network.eval()
