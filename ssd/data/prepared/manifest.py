"""The two JSON files of a prepared copy: what was asked for, written first, and what came of it, written last."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from ...commands.errors import UsageError
from ...commands.files import write_json
from ..sizes import check_channels, parse_size

SETTINGS = "settings.json"
MANIFEST = "manifest.json"
LABELS = "labels.npy"
FORMAT = "packed"
VERSION = 2
"""1: pictures were not turned by their EXIF tag, transparency was dropped, and deep grey was clipped to 8 bits."""

EARLIER_VERSION = "was made before EXIF orientation, transparency and grey of more than 8 bits were respected"
"""What to say of a copy of version 1."""

MAY_LACK = {"class_names", "channels"}
"""Entries that copies of an earlier version, and colour copies, do without."""

T = TypeVar("T", bound="CopySettings")


@dataclass
class CopySettings:
    """What a copy is made of.

    Parameters
    ----------
    spec, preset, filter, background, split, size, count, num_classes, channels
        Provenance of the original; a copy of version 1 has the background None, and `channels` is written of grey
        copies alone.
    source_hash : str
        Content hash of the original.
    skip_bad_images : bool
    format : str
        Always "packed"; earlier versions made copies of PNG files too, "png".
    version : int
        Of the layout on disk.
    """

    spec: str
    preset: str
    filter: str
    background: str | None
    split: str
    size: int | list[int]
    count: int
    num_classes: int | None
    source_hash: str
    skip_bad_images: bool
    format: str = FORMAT
    version: int = VERSION
    channels: int = 3


@dataclass
class Manifest(CopySettings):
    """What a finished copy holds.

    Parameters
    ----------
    hash : str
        SHA-256 over the SHA-256 of each image's pixels, in order, and the labels.
    labels : str, optional
        Name of the file of labels, int64.
    bad_images : list of str
        Unreadable originals, each replaced by the next readable one.
    pillow : str
        Version of Pillow that decoded and resized.
    conversions : dict
        How many images were "turned", "composited" and "scaled", and of a grey copy "greyed"; empty in a copy of
        version 1.
    class_names : list of str, optional
        Names of the classes, where there are labels; earlier copies lack them.
    """

    hash: str = ""
    labels: str | None = None
    bad_images: list[str] = field(default_factory=list)
    pillow: str = ""
    conversions: dict[str, int] = field(default_factory=dict)
    class_names: list[str] | None = None

    def provenance(self) -> dict[str, Any]:
        """The provenance of the original, with the content hash of the copy."""
        keys = ("spec", "preset", "filter", "background", "split", "size", "count", "hash", "num_classes")
        known = {key: getattr(self, key) for key in keys if key != "background" or self.background is not None}
        return known | ({} if self.channels == 3 else {"channels": self.channels})

    def conversion_counts(self) -> dict[str, int]:
        """As `ImageData.conversion_counts` of the original after all of it was read."""
        return {"read": self.count, **self.conversions}


def read_record(path: Path, kind: type[T]) -> T:
    """Read one of the two files, of this version or of version 1; every field must be there, and no other."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}): prepare the copy again.") from error
    if isinstance(content, dict) and content.get("format") == "png":
        raise UsageError(
            f"{path.parent} is a copy of PNG files, which this version does not read: prepare the data again into "
            f"another folder, or use folder:{path.parent}/images, which has no labels."
        )
    if isinstance(content, dict) and content.get("version") == 1:
        content |= {"background": None} | ({"conversions": {}} if kind is Manifest else {})
    expected = {entry.name for entry in fields(kind)} - MAY_LACK
    known = isinstance(content, dict) and set(content) - MAY_LACK == expected
    if not known or content["version"] not in (1, VERSION):
        raise UsageError(f"{path} was not written by this version of ssd.data.prepare: prepare the copy again.")
    try:
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(kind)
        record = kind(**parser.parse_object(content).as_dict())
        wrong = _wrong_field(record)
    except ArgumentError as error:
        wrong = " ".join(str(error).split())
    if wrong:
        raise UsageError(f"{path} is damaged ({wrong}): prepare the copy again.")
    return record


def _wrong_field(record: CopySettings) -> str:
    """What no copy has, in words; empty for a sound record."""
    if record.count < 1 or record.format != FORMAT:
        return f"count {record.count}, format {record.format}"
    try:
        parse_size(record.size)
        check_channels(record.channels)
    except UsageError as error:
        return str(error).rstrip(".")
    if record.num_classes is not None and record.num_classes < 1:
        return f"num_classes {record.num_classes}"
    if isinstance(record, Manifest):
        if record.labels not in (None, LABELS):
            return f"labels {record.labels!r}"
        if record.class_names is not None and len(record.class_names) != record.num_classes:
            return f"{len(record.class_names)} class_names for {record.num_classes} classes"
    return ""


def write_record(path: Path, content: CopySettings) -> None:
    """Write one of the two files whole or not at all, and wait until the disk has it."""
    entries = asdict(content)
    if content.channels == 3:
        del entries["channels"]  # colour copies are as they were before there were grey ones
    write_json(path, entries, sync=True)
