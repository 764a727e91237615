"""Folders of drawn images: files named by their numbers, all of one origin, so that a stopped run continues there.

`samples.json` says what decides over the pixels of all images of a folder, and how many were asked for; `labels.json`
has the classes of a class-conditional model.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..commands.errors import UsageError
from ..commands.files import file_sha256, remove_leftovers, whole_file, write_json
from ..pipelines.hub import model_folder
from ..pipelines.saved_files import decisive_files
from ..pipelines.staging import complete_pipeline
from .many_images import SamplingSettings
from .pictures import as_picture

SETTINGS_FILE = "samples.json"
LABELS_FILE = "labels.json"
NUMBERED = re.compile(r"\d{6,}\.png")
"""The names of our images."""


def sampling_settings(model: Path, settings: SamplingSettings) -> dict[str, Any]:
    """What decides over the pixels of image i, whoever draws it."""
    decisive: dict[str, Any] = {
        "model": model_sha256(model),
        "sampler": settings.sampler,
        "steps": settings.steps,
        "eta": settings.eta,
        "seed": settings.seed,
        "dtype": settings.dtype,
        "residual_covariance": settings.residual_covariance,
        "compile": settings.compile,
    }
    return decisive if settings.switches is None else decisive | {"switches": settings.switches}


def model_sha256(model: Path) -> str:
    """One hash of a saved pipeline: its configurations and weights."""
    folder = complete_pipeline(model_folder(model))
    lines = [f"{name} {file_sha256(file)}" for name, file in decisive_files(folder).items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def claim_image_folder(
    path: Path, image_folders: Sequence[Path], settings: Mapping[str, Any], num: int, overwrite: bool = False
) -> None:
    """Make sure that all images are of one origin, and write it down in `samples.json`.

    Parameters
    ----------
    path : pathlib.Path
        Where `samples.json` is; somebody holds the folder, see `hold_folder`.
    image_folders : sequence of pathlib.Path
        Where the images are; they need not exist.
    settings : mapping
        What decides over their pixels.
    num : int
        The number of images that are asked for. More or fewer may have been asked for before.
    overwrite : bool
        Remove the numbered images of another origin; other files are never removed.

    Raises
    ------
    UsageError
        When the folder holds images that were drawn differently, or that nobody knows of.
    """
    before = _read_settings(path / SETTINGS_FILE)
    known = (before or {}).pop("num", 0)
    if before is None:
        _check_images(path, image_folders, overwrite)
    elif before != settings and not overwrite:
        _refuse(path, before, settings)
    if before != settings:
        known = 0
        for file in (file for folder in image_folders for file in _images_in(folder) if NUMBERED.fullmatch(file.name)):
            file.unlink()
    for folder in (path, *image_folders):
        remove_leftovers(folder)
    write_json(path / SETTINGS_FILE, {**settings, "num": max(num, known if isinstance(known, int) else 0)})


def write_labels(path: Path, kind: str, labels: Sequence[int] | None) -> None:
    """Write the classes of all images into `labels.json`; nothing for an unconditional model."""
    if labels is not None:
        write_json(path / LABELS_FILE, {"kind": kind, "labels": list(labels)})


def missing_images(image_folders: Sequence[Path], num: int) -> list[int]:
    """Numbers of the images below `num` that are not in every one of the folders, ascending."""
    present = [{entry.name for entry in os.scandir(f)} if f.is_dir() else set() for f in image_folders]
    return [i for i in range(num) if any(picture_name(i) not in names for names in present)]


def picture_name(index: int) -> str:
    """The file name of image number `index`."""
    return f"{index:06d}.png"


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, C) uint8 as PNG, RGB or of one channel grey, whole or not at all."""
    with whole_file(path) as temporary:
        as_picture(pixels).save(temporary, format="PNG")


def load_picture(path: Path) -> np.ndarray:
    """What `save_picture` wrote: (H, W, C) uint8."""
    with Image.open(path) as image:
        return np.atleast_3d(np.array(image))


def _refuse(path: Path, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    name = next(key for key in [*settings, *before] if before.get(key, "unknown") != settings.get(key, "unknown"))
    raise UsageError(
        f"{path} holds images of another run: {name} is {before.get(name)!r} there and {settings.get(name)!r} here; "
        "choose another --out, or remove them with --overwrite."
    )


def _check_images(path: Path, image_folders: Sequence[Path], overwrite: bool) -> None:
    """Raise a `UsageError` that names an image in the folders; to be overwritten are those with names like ours."""
    for file in (file for folder in image_folders for file in _images_in(folder)):
        ours = NUMBERED.fullmatch(file.name) is not None
        if not (ours and overwrite):
            remedy = "remove them with --overwrite" if ours else "move them away"
            raise UsageError(
                f"{path} holds images that no {SETTINGS_FILE} tells the origin of, such as {file.name}: choose another "
                f"--out, or {remedy}."
            )


def _images_in(folder: Path) -> list[Path]:
    """The image files of a folder, by their names."""
    endings = Image.registered_extensions()
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [file for file in files if file.suffix.lower() in endings and not file.name.startswith(".")]


def _read_settings(path: Path) -> dict[str, Any] | None:
    """The settings of the images that are there; None where nobody wrote them."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({error}): remove it and the images beside it.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} does not hold settings: remove it and the images beside it.")
    return content
