"""`hub:NAME[:config]` and `hub-stream:NAME[:config]`: data sets of the Hugging Face Hub, on disk or streamed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...commands.errors import UsageError
from ...operators.sizes import Size
from ..dataset import PixelDataset
from ..files import Listing, extension_of
from ..reading import ReadError, UnreadableImage, read_size
from ..request import DataRequest
from ..stream import ImageStream, Sample
from .hub_columns import find_columns, first_missing, missing_label, read_labels, stream_classes

TABLES = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".tar", ".zip")
"""Extensions of files from which the package datasets makes rows."""


class HubImages(PixelDataset):
    """A data set that `datasets.load_dataset` downloads once, or finds in a local folder.

    The picture is the column of type Image, the label the column of type ClassLabel (see `find_columns`). Rows without
    a picture are unreadable images.
    """

    def __init__(self, request: DataRequest) -> None:
        self.rows = load(request, streaming=False)
        self.columns = find_columns(self.rows, request)
        labels, classes = read_labels(self.rows, self.columns, request)
        self.rows = undecoded(self.rows, self.columns.image)
        super().__init__(request, len(self.rows), request.split, labels, classes)

    def pixels(self, index: int) -> np.ndarray:
        name = f"{self.image_name(index)} of {self.request.spec}"
        return self.decoded(index, partial(open_stored, self.rows[index][self.columns.image]), name)

    def header_sizes(self) -> Iterator[Size | UnreadableImage]:
        for index, row in enumerate(self.rows.select_columns(self.columns.image)):
            name = f"{self.image_name(index)} of {self.request.spec}"
            yield read_size(partial(open_stored, row[self.columns.image]), name)

    def image_name(self, index: int) -> str:
        return f"{self.split}[{index}]"

    def content_hash(self) -> str:
        return hash_info(self.rows, self.split)


class HubStream(ImageStream):
    """The same read over the network while training, nothing kept on disk. See `ImageStream` for its order.

    Items have labels only where labels are asked for.
    """

    def __init__(self, request: DataRequest) -> None:
        rows = load(request, streaming=True)
        self.columns = find_columns(rows, request)
        known = self.columns.class_names is not None or (request.labels and self.columns.label is not None)
        classes = stream_classes(rows, self.columns, request) if known else None
        self._numbers = classes.numbers if classes is not None and request.labels else None
        self.rows = undecoded(rows, self.columns.image)
        info = (rows.info.splits or {}).get(request.split)
        count = None if info is None else info.num_examples
        super().__init__(request, request.split, rows.num_shards, count, classes)

    def content_hash(self) -> str:
        return hash_info(self.rows, self.split)

    def read_shard(self, shard: int) -> Iterator[Sample]:
        # In small batches, since plain iteration would divide the rows among the workers a second time.
        batches = self.rows.shard(num_shards=self.num_shards, index=shard).iter(batch_size=16)
        number = 0
        for batch in batches:
            pictures = batch[self.columns.image]
            for picture, label in zip(pictures, batch.get(self.columns.label) or [None] * len(pictures)):
                row = f"{self.split}[shard {shard}, {number}]"
                yield Sample(f"{row} of {self.request.spec}", partial(open_stored, picture), self._number(label, row))
                number += 1

    def _number(self, label: Any, row: str) -> int | None:
        """The number of the class of a row, where labels are asked for."""
        if self._numbers is None:
            return None
        if first_missing([label]) is not None:
            raise ReadError(str(missing_label(row, self.request)))
        if label not in self._numbers:
            raise ReadError(f"The label of {row} of {self.request.spec} is {label!r}, not one of the classes.")
        return self._numbers[label]


def load(request: DataRequest, streaming: bool) -> Any:
    """`datasets.load_dataset` with one-line errors."""
    try:
        import datasets
    except ImportError:
        raise UsageError("hub:NAME needs the package datasets: pip install datasets.") from None
    name, _, config = request.path.partition(":")
    check_name(name, request)
    try:
        return datasets.load_dataset(name, config or None, split=request.split, streaming=streaming)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"Cannot open {request.spec} with split {request.split!r}: {reason}") from error


def check_name(name: str, request: DataRequest) -> None:
    """Refuse a name that climbs out of its folder, and a folder of this machine that is not a data set of the Hub."""
    path = Path(name)
    if ".." in path.parts:
        raise UsageError(f"{request.spec} must not have '..' in its name: give a name of the Hub, or a whole path.")
    if not path.exists():
        if name.startswith((".", "/", "~")):
            raise UsageError(f"{request.spec} is not there: give a name of the Hub, or an existing folder.")
        return
    if path.is_file() or not any(is_table(file) for file in Listing(path).names):
        raise UsageError(
            f"{request.spec} is on this machine and has no tables of a data set of the Hub ({', '.join(TABLES)}): "
            f"use folder:{name} for a folder of images."
        )


def is_table(name: str) -> bool:
    """Whether a file may hold the rows of a data set of the Hub."""
    return extension_of(name) in TABLES


def undecoded(rows: Any, column: str) -> Any:
    """The same rows with pictures as they are stored, so that a damaged one can be named."""
    import datasets

    return rows.cast_column(column, datasets.Image(decode=False))


def open_stored(stored: dict[str, Any] | None) -> Image.Image:
    """The picture of a row, not decoded: the package datasets would turn it and forget how it was stored."""
    import fsspec

    if stored is None:
        raise OSError("the row has no picture")
    data = stored["bytes"]
    if data is None:
        with fsspec.open(stored["path"], "rb") as file:  # on this disk, in an archive or on the Hub
            data = file.read()
    return Image.open(io.BytesIO(data))


def hash_info(rows: Any, split: str) -> str:
    """SHA-256 of what the Hub says about the data: name, configuration, version, sizes and checksums."""
    info = rows.info
    known = (info.splits or {}).get(split)
    facts = {
        "name": info.dataset_name,
        "config": info.config_name,
        "version": str(info.version),
        "split": split,
        "num_examples": known and known.num_examples,
        "num_bytes": known and known.num_bytes,
        "checksums": info.download_checksums,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
