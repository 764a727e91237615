"""Inception networks from weights files on this machine.

The two networks are clean-fid's: the TorchScript file that mode `clean` uses, and pytorch-fid's port of the same
network as a state dict, which mode `legacy_pytorch` uses. Both take (B, 3, 299, 299), float32 in [0, 255], and give
(B, 2048). clean-fid's own loaders download; here a file is given.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models import Inception3, inception_v3

from ...commands.errors import UsageError

Network = Callable[[torch.Tensor], torch.Tensor]


def load_inception(path: Path, device: torch.device | str) -> Network:
    """Inception as clean-fid uses it, from a TorchScript file, a state dict or a safetensors file.

    Returns
    -------
    callable
        (B, 3, 299, 299) float32 in [0, 255] -> (B, 2048).

    Raises
    ------
    UsageError
        When the file does not hold this network.
    """
    if is_torchscript(path):
        return _torchscript_inception(path, device)
    return _plain_inception(read_state_dict(path), path, device)


def load_module(path: Path, device: torch.device | str) -> Network:
    """A user's extractor: a TorchScript module (B, 3, H, W) in [0, 255] -> (B, D), or weights of an Inception.

    A state dict or safetensors file with 1008 classes is taken for pytorch-fid's Inception, with 1000 classes for
    torchvision's `inception_v3`; the features are the last average pool's.
    """
    if is_torchscript(path):
        return _torchscript(path, device)
    state = read_state_dict(path)
    if "fc.weight" in state and len(state["fc.weight"]) == 1000:
        return _torchvision_inception(state, path, device)
    return _plain_inception(state, path, device)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive (it holds code), rather than plain weights."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file or of a .pt/.pth state dict; nothing in the file is executed."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises is anybody's guess
        raise UsageError(f"{path} does not hold weights that can be read safely ({_first_line(error)}).") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UsageError(f"{path} is not a state dict: save the extractor with torch.save(module.state_dict(), PATH).")
    return state


def fid_inception() -> Inception3:
    """pytorch-fid's variant of torchvision's Inception, uninitialised; its blocks are clean-fid's.

    It has 1008 classes, average pools that leave out the padding, and one max pool in the last block.
    """
    from cleanfid.inception_pytorch import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2

    network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    for name, in_channels, pool_features in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        setattr(network, f"Mixed_{name}", FIDInceptionA(in_channels, pool_features=pool_features))
    for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        setattr(network, f"Mixed_{name}", FIDInceptionC(768, channels_7x7=width))
    network.Mixed_7b, network.Mixed_7c = FIDInceptionE_1(1280), FIDInceptionE_2(2048)
    return network


def _torchscript(path: Path, device: torch.device | str) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, but published files are in it
            return torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise UsageError(f"{path} cannot be loaded as TorchScript ({_first_line(error)}).") from error


def _torchscript_inception(path: Path, device: torch.device | str) -> Network:
    layers = getattr(_torchscript(path, device), "layers", None)
    if layers is None:
        raise UsageError(f"{path} is not the TorchScript Inception that clean-fid uses: it has no part 'layers'.")
    return lambda images: layers((images - 128) / 128).view(len(images), 2048)


def _plain_inception(state: dict[str, torch.Tensor], path: Path, device: torch.device | str) -> Network:
    network = _last_pool(fid_inception(), state, path, "pytorch-fid's Inception").to(device)
    return lambda images: network(2 * (images / 255) - 1)


def _torchvision_inception(state: dict[str, torch.Tensor], path: Path, device: torch.device | str) -> Network:
    has_aux = any(name.startswith("AuxLogits.") for name in state)
    network = inception_v3(weights=None, aux_logits=has_aux, init_weights=False)
    network = _last_pool(network, state, path, "torchvision's inception_v3").to(device)
    return lambda images: network(images / 127.5 - 1)


def _last_pool(network: Inception3, state: dict[str, torch.Tensor], path: Path, name: str) -> Inception3:
    """The network with the weights of `state`, without its classifier."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(f"{path} does not fit {name}: {_first_line(error)}") from error
    network.fc = nn.Identity()
    return network.eval()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] if lines else type(error).__name__
