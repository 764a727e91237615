"""`prepared:DIR`: a copy made by `python -m ssd.data.prepare`."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ...commands.errors import UsageError
from ..dataset import PixelDataset
from ..labels import number_classes, number_labels
from ..request import DataRequest
from ..sizes import CHANNELS, parse_size, size_text
from ..transforms import PRESETS
from .manifest import EARLIER_VERSION, MANIFEST, SETTINGS, VERSION, Manifest, read_record
from .store import PixelStore

logger = logging.getLogger("ssd")


class PreparedImages(PixelDataset):
    """Images that were cropped and resized before, from one array that is mapped into memory.

    Its provenance is the original's, with the copy's own content hash. The default preset and the default split stand
    for "as prepared", and so does the default background; any other must be the one that the copy was made with.

    Raises
    ------
    UsageError
        For a folder that is not a finished copy, and for a size, channels, preset, split or background other than the
        copy's.
    """

    def __init__(self, request: DataRequest) -> None:
        self.folder = Path(request.path)
        self.manifest = read_manifest(self.folder)
        check_request(request, self.manifest)
        if self.manifest.version != VERSION:
            logger.warning("%s %s: prepare it again if the originals have any.", self.folder, EARLIER_VERSION)
        self.store = PixelStore(self.folder, self.manifest.count, request.size, self.manifest.channels)
        labels, classes = read_labels(self.folder, self.manifest), None
        names = self.manifest.class_names
        if labels is not None and names is not None:
            classes = number_classes(range(len(names)), request.spec, names)
        elif labels is not None:  # a copy of an earlier version, whose classes may have gaps
            labels, classes = number_labels(labels, request.spec)
        as_prepared = replace(request, background=self.manifest.background or request.background)
        super().__init__(as_prepared, self.manifest.count, self.manifest.split, labels, classes)
        self.read(0)

    @property
    def provenance(self) -> dict[str, Any]:
        """Of the original; see `PixelDataset.provenance`."""
        return self.manifest.provenance()

    counts_own_reads = False

    def conversion_counts(self) -> dict[str, int]:
        """Of the original, when the copy was made."""
        return self.manifest.conversion_counts()

    def pixels(self, index: int) -> np.ndarray:
        return self.store.read(index)

    def header_sizes(self) -> NoReturn:
        raise UsageError(
            f"{self.request.spec} is a prepared copy, whose smaller pictures were enlarged when it was made: use "
            "--small_images upscale, or train with the original pictures."
        )

    def image_name(self, index: int) -> str:
        return self.store.name(index)

    def content_hash(self) -> str:
        return self.manifest.hash


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished copy."""
    if (folder / MANIFEST).is_file():
        return read_record(folder / MANIFEST, Manifest)
    if (folder / SETTINGS).is_file():
        raise UsageError(f"The copy in {folder} is not finished: run the same ssd.data.prepare command again.")
    raise UsageError(f"{folder} has no {MANIFEST}: make a copy with  python -m ssd.data.prepare SPEC --out {folder}.")


def read_labels(folder: Path, manifest: Manifest) -> np.ndarray | None:
    """Labels (N,), int64, or None where the data have none."""
    if manifest.labels is None:
        return None
    path = folder / manifest.labels
    try:
        labels = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path} cannot be read ({error}): prepare the copy again.") from error
    if labels.shape != (manifest.count,):
        raise UsageError(f"{path} holds labels of shape {labels.shape}, not ({manifest.count},): prepare it again.")
    return labels


def check_request(request: DataRequest, manifest: Manifest) -> None:
    """Refuse what the copy is not."""
    wrong = ""
    size = parse_size(manifest.size)
    if request.size != size:
        wrong = f"images of {size_text(size)}, but {size_text(request.size)} are asked for"
    elif request.channels != manifest.channels:
        wrong = f"{CHANNELS[manifest.channels]} images, but {CHANNELS[request.channels]} ones are asked for"
    elif request.preset.name not in (manifest.preset, next(iter(PRESETS))):
        wrong = f"the preset {manifest.preset}, but {request.preset.name} is asked for"
    elif request.split not in (manifest.split, "train"):
        wrong = f"the split {manifest.split}, but {request.split} is asked for"
    elif request.background not in (manifest.background, DataRequest.background):
        made_with = manifest.background or "of an earlier version, which dropped transparency"
        wrong = f"the background {made_with}, but {request.background} is asked for"
    if wrong:
        raise UsageError(f"The copy in {request.path} has {wrong}: prepare another one from {manifest.spec}.")
