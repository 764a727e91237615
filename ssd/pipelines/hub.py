"""Models by their names on the Hub: `user/name`, downloaded once into the cache of huggingface_hub.

Only configurations, weights and the card are downloaded: our package never runs, or even fetches, the code that a
repository brings for those who do not have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub

from .saved_files import check_digests

WANTED = ("*.json", "*.safetensors", "README.md")
"""What is downloaded."""

DOWNLOAD_SETTINGS = ("revision", "token", "cache_dir", "force_download", "local_files_only")
"""Arguments of `from_pretrained` that say what is downloaded, and how."""


def is_hub_id(model: str | Path) -> bool:
    """Whether a name is that of a repository, user/name, and of no folder here.

    What lies in a folder that is there, such as `runs/`, is a path, also when it is misspelled: nobody is asked for it.

    Examples
    --------
    >>> is_hub_id("user/digits"), is_hub_id("/models/digits"), is_hub_id("digits")
    (True, False, False)
    """
    name = str(model)
    if name.count("/") != 1 or Path(name).exists() or Path(name).parent.is_dir():
        return False
    try:
        huggingface_hub.utils.validate_repo_id(name)
    except ValueError:
        return False
    return True


def model_folder(model: str | Path, **settings: Any) -> Path:
    """The folder of a model: the name itself, or where a repository of this name was downloaded to.

    Parameters
    ----------
    model : str or pathlib.Path
    **settings
        Of the download, see `DOWNLOAD_SETTINGS`.

    Raises
    ------
    ValueError
        When the repository cannot be had, or its weights are not those of its digests.
    """
    if not is_hub_id(model):
        return Path(model)
    try:
        folder = Path(huggingface_hub.snapshot_download(str(model), allow_patterns=list(WANTED), **settings))
    except Exception as error:  # the library lets errors of its own, of the HTTP client and of the system through
        raise ValueError(
            f"{model} is no folder here, and as a model on the Hub it cannot be downloaded: {first_line(error)}"
        ) from error
    check_digests(folder)
    return folder


def first_line(error: Exception) -> str:
    """What an exception of huggingface_hub says, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
