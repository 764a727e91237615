"""Weights files of the Inception networks: found, or downloaded, and verified before anything reads them."""

from __future__ import annotations

import os
import urllib.error
from dataclasses import dataclass
from pathlib import Path

import torch

from ...commands.errors import UsageError
from ...commands.files import file_sha256

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
