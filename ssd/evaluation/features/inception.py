"""Inception networks from weights files: found, verified, loaded.

The two networks are clean-fid's: the TorchScript file that mode `clean` uses, and pytorch-fid's port of the same
network as a state dict, which mode `legacy_pytorch` uses. Both take (B, 3, 299, 299), float32 in [0, 255], and give
(B, 2048).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from ...commands.errors import UsageError

ENVIRONMENT_VARIABLE = "SSD_INCEPTION_WEIGHTS"


@dataclass(frozen=True)
class OfficialWeights:
    """A published weights file."""

    name: str
    url: str
    sha256: str


# The digests are those that k-diffusion (the first) and torch-fidelity's name (the second: its first eight digits)
# give for these files; we could not download the files to confirm them.
OFFICIAL = {
    "clean": OfficialWeights(
        "inception-2015-12-05.pt",
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
        "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    ),
    "legacy_pytorch": OfficialWeights(
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
}


def find_weights(mode: str, given: str | None = None) -> Path:
    """The weights file of a mode: the one given, the environment's, torch hub's, or downloaded to there.

    Parameters
    ----------
    mode : {"clean", "legacy_pytorch"}
    given : str, optional
        A file, or a folder that holds the file under its published name.

    Raises
    ------
    UsageError
        When there is no such file and no network: says what to download and where to put it.
    """
    official = OFFICIAL[mode]
    source = "--inception_weights" if given else ENVIRONMENT_VARIABLE
    given = given or os.environ.get(ENVIRONMENT_VARIABLE)
    if given:
        path = Path(given) / official.name if Path(given).is_dir() else Path(given)
        if not path.is_file():
            raise UsageError(f"{source} {given}: there is no file {path}; download {official.url} to it.")
        return path
    cached = Path(torch.hub.get_dir()) / "checkpoints" / official.name
    if not cached.is_file():
        _download(mode, official, cached)
    return cached


def _download(mode: str, official: OfficialWeights, path: Path) -> None:
    """Fetch the file to a temporary name, verify it, and only then give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(official.url, str(path), hash_prefix=official.sha256, progress=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UsageError(
            f"The features '{mode}' need Inception weights, and they cannot be downloaded here ({error}): on a machine "
            f"with network download {official.url}, put the file {official.name} at {path}, or name it with "
            f"--inception_weights PATH or the environment variable {ENVIRONMENT_VARIABLE}; "
            "--features pixels needs no weights."
        ) from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def verify(path: Path, expected: str | None = None) -> str:
    """SHA-256 of a weights file, which must be the expected one before anything reads the file.

    Parameters
    ----------
    path : Path
    expected : str, optional
        64 hexadecimal digits; "none" accepts any file; default: one of the published files.

    Raises
    ------
    UsageError
        With both digests.
    """
    found = file_sha256(path)
    if expected == "none":
        return found
    if expected is None:
        if found in {official.sha256 for official in OFFICIAL.values()}:
            return found
        known = ", ".join(f"{official.sha256} ({official.name})" for official in OFFICIAL.values())
        raise UsageError(
            f"{path} has the SHA-256 {found}, but the published files have {known}: download it again, or, if it is "
            f"meant to be another file, say so with --inception_sha256 {found} (or none)."
        )
    if found != expected.lower():
        raise UsageError(
            f"{path} has the SHA-256 {found}, expected {expected}: the download is incomplete or another file."
        )
    return found


def load_inception(path: Path, device: torch.device | str) -> Callable[[torch.Tensor], torch.Tensor]:
    """clean-fid's extractor with the weights of a TorchScript file, a state dict or a safetensors file.

    Returns
    -------
    callable
        (B, 3, 299, 299) float32 in [0, 255] -> (B, 2048).
    """
    if is_torchscript(path):
        return _torchscript_inception(path, device)
    return _plain_inception(read_state_dict(path), path, device)


def load_module(path: Path, device: torch.device | str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A user's extractor: a TorchScript module (B, 3, H, W) in [0, 255] -> (B, D), or weights of an Inception.

    A state dict or safetensors file with 1008 classes is taken for pytorch-fid's Inception, with 1000 classes for
    torchvision's `inception_v3`; the features are the last average pool's.
    """
    if is_torchscript(path):
        try:
            with _no_deprecations():
                return torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            raise UsageError(f"{path} cannot be loaded as TorchScript ({_first_line(error)}).") from error
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
        raise UsageError(f"{path} holds no weights that can be read safely ({_first_line(error)}).") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UsageError(f"{path} is no state dict: save the extractor with torch.save(module.state_dict(), PATH).")
    return state


def _torchscript_inception(path: Path, device: torch.device | str) -> nn.Module:
    from cleanfid.inception_torchscript import InceptionV3W

    # clean-fid looks for the file's published name in a folder: give it one, whatever the file is called.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / OFFICIAL["clean"].name).symlink_to(path.resolve())
        try:
            with _no_deprecations():
                return InceptionV3W(folder, download=False).to(device).eval()
        except (RuntimeError, AttributeError) as error:
            raise UsageError(f"{path} is no TorchScript Inception as clean-fid uses ({_first_line(error)}).") from error


def _plain_inception(
    state: dict[str, torch.Tensor], path: Path, device: torch.device | str
) -> Callable[[torch.Tensor], torch.Tensor]:
    from cleanfid import inception_pytorch

    # clean-fid has no argument for a local file: its one call that would download returns our tensors.
    local = mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value=state)
    try:
        with local, _no_deprecations():
            network = inception_pytorch.InceptionV3(output_blocks=[3], resize_input=False)
    except RuntimeError as error:
        raise UsageError(f"{path} does not fit pytorch-fid's Inception: {_first_line(error)}") from error
    network = network.to(device).eval()
    return lambda images: network(images / 255)[0].flatten(1)


def _torchvision_inception(
    state: dict[str, torch.Tensor], path: Path, device: torch.device | str
) -> Callable[[torch.Tensor], torch.Tensor]:
    has_aux = any(name.startswith("AuxLogits.") for name in state)
    network = torchvision.models.inception_v3(weights=None, aux_logits=has_aux, init_weights=False)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(f"{path} does not fit torchvision's inception_v3: {_first_line(error)}") from error
    network.fc = nn.Identity()
    network = network.to(device).eval()
    return lambda images: network(images / 127.5 - 1)


@contextmanager
def _no_deprecations() -> Iterator[None]:
    """Without the warnings on TorchScript and on old arguments of torchvision, which clean-fid and its files need."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] if lines else type(error).__name__
