"""Feature extractors: 8-bit pictures -> feature vectors.

An extractor has two halves: the resizing of `resizing.py` runs per picture, in worker processes too; the network runs
per batch on the device.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ...commands.errors import UsageError
from ...commands.files import file_sha256
from .efficientnet import NAME as EFFICIENTNET
from .efficientnet import WEIGHTS_SHA256, load_efficientnet
from .inception import load_inception, load_module
from .weights import find_weights, verify

PIXEL_SIDE = 8
NAMES = ("pixels", "clean", "legacy_pytorch", EFFICIENTNET)
"""Extractors by name; module:PATH is another."""


def reduce_to_pixels(images: torch.Tensor) -> torch.Tensor:
    """Images reduced to 8 x 8 by area: (B, C, H, W) in [-1, 1] -> (B, C, 8, 8)."""
    return F.interpolate(images, size=(PIXEL_SIDE, PIXEL_SIDE), mode="area")


def pixel_features(images: torch.Tensor) -> torch.Tensor:
    """The image reduced to 8 x 8 by area, as a vector: (B, C, H, W) -> (B, 64 C). Needs no weights."""
    return reduce_to_pixels(images).flatten(1)


@dataclass(frozen=True)
class Extractor:
    """A feature extractor, ready to run.

    Parameters
    ----------
    name : str
        pixels, clean, legacy_pytorch, efficientnet_lite0 or module:PATH.
    resize : {"clean", "legacy_pytorch", "clean_224", "none"}
        What `resize_picture` does for it.
    network : callable
        (B, C, H, W), float32 in [0, 255] -> (B, D); C is 3 for all but `pixels`.
    weights_sha256 : str, optional
        SHA-256 of the weights file, if there is one.
    device : str
    bf16 : bool
        Run the network in bfloat16 (faster on GPUs, other numbers).
    """

    name: str
    resize: str
    network: Callable[[torch.Tensor], torch.Tensor]
    weights_sha256: str | None = None
    device: str = "cpu"
    bf16: bool = False

    @property
    def label(self) -> str:
        """The name in metrics: pixels, clean, legacy_pytorch, efficientnet_lite0 or module."""
        return self.name.partition(":")[0]

    @property
    def provenance(self) -> dict[str, Any]:
        """What two statistics must share to be comparable."""
        return {
            "extractor": self.label,
            "resize": self.resize,
            "weights_sha256": self.weights_sha256,
            "precision": "bfloat16" if self.bf16 else "float32",
        }

    @torch.no_grad()
    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """Features (B, D), float32 on the CPU, of resized pictures (B, 3, H, W), float32 in [0, 255].

        Grey ones, (B, 1, H, W), go to `pixels` as they are, and to networks with their channel repeated.
        """
        if self.name != "pixels" and pictures.shape[1] == 1:
            pictures = pictures.expand(-1, 3, -1, -1)
        device = torch.device(self.device)
        tf32 = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with tf32, torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            features = self.network(pictures.to(device))
        if features.ndim == 4 and features.shape[2:] == (1, 1):
            features = features.flatten(1)
        if features.ndim != 2 or len(features) != len(pictures):
            raise UsageError(
                f"The extractor {self.name} must give one vector per picture, ({len(pictures)}, D), "
                f"got {tuple(features.shape)}."
            )
        return features.float().cpu()


def load_extractor(
    name: str,
    device: str = "cpu",
    weights: str | None = None,
    sha256: str | None = None,
    resize: str = "clean",
    bf16: bool = False,
) -> Extractor:
    """Load an extractor by its name.

    Parameters
    ----------
    name : str
        `pixels`; `clean` or `legacy_pytorch` (Inception as clean-fid defines these modes); `efficientnet_lite0` (of the
        extra `features`); or `module:PATH`.
    device : str
    weights : str, optional
        Inception weights file, or a folder with the published files.
    sha256 : str, optional
        What the Inception weights file must have; "none" accepts any.
    resize : {"clean", "legacy_pytorch", "none"}
        How pictures are resized for `module:PATH`; the others have their own way.
    bf16 : bool

    Raises
    ------
    UsageError
        When the name is unknown, or weights or packages are missing, or weights are not the expected ones.
    """
    check_extractor_name(name)
    if name == "pixels":
        return Extractor(name, "none", lambda pictures: pixel_features(pictures / 127.5 - 1), device=device)
    if name == EFFICIENTNET:
        return Extractor(name, "clean_224", load_efficientnet(device), WEIGHTS_SHA256, device, bf16)
    if name.startswith("module:"):
        path = Path(name.removeprefix("module:"))
        return Extractor(name, resize, load_module(path, device), file_sha256(path), device, bf16)
    path = find_weights(name, weights)
    digest = verify(path, sha256)
    return Extractor(name, name, load_inception(path, device), digest, device, bf16)


def check_extractor_name(name: str) -> None:
    """Raise a `UsageError` for a name that `load_extractor` does not know, before anything is loaded."""
    if name.startswith("module:"):
        if not Path(name.removeprefix("module:")).is_file():
            raise UsageError(f"--features {name}: there is no such file; give module:PATH of a weights file.")
    elif name not in NAMES:
        raise UsageError(f"--features {name!r} is unknown: use {', '.join(NAMES)} or module:PATH.")


def check_sha256(text: str | None) -> None:
    """Raise a `UsageError` unless `text` is none or 64 hexadecimal digits."""
    if text is not None and text != "none" and not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise UsageError(f"--inception_sha256 must be 64 hexadecimal digits or none, got {text!r}.")
