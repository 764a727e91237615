"""`hub:NAME[:config]` and `hub-stream:NAME[:config]`: data sets of the Hugging Face Hub, on disk or streamed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ...commands.errors import UsageError
from ..dataset import PixelDataset
from ..request import DataRequest
from ..stream import ImageStream, Sample


class HubImages(PixelDataset):
    """A data set that `datasets.load_dataset` downloads once, or finds in a local folder.

    The picture is the column of type Image, the label the column of type ClassLabel (see `find_columns`).
    """

    def __init__(self, request: DataRequest) -> None:
        self.rows = load(request, streaming=False)
        self.columns = find_columns(self.rows, request.spec)
        labels = read_labels(self.rows, self.columns)
        self.rows = undecoded(self.rows, self.columns.image)
        num_classes = None if labels is None else self.columns.num_classes
        super().__init__(request, len(self.rows), request.split, labels, num_classes)

    def pixels(self, index: int) -> np.ndarray:
        name = f"{self.image_name(index)} of {self.request.spec}"
        return self.decoded(index, partial(open_stored, self.rows[index][self.columns.image]), name)

    def image_name(self, index: int) -> str:
        return f"{self.split}[{index}]"

    def content_hash(self) -> str:
        return hash_info(self.rows, self.split)


class HubStream(ImageStream):
    """The same read over the network while training, nothing kept on disk. See `ImageStream` for its order."""

    def __init__(self, request: DataRequest) -> None:
        rows = load(request, streaming=True)
        self.columns = find_columns(rows, request.spec)
        self.rows = undecoded(rows, self.columns.image)
        info = (rows.info.splits or {}).get(request.split)
        count = None if info is None else info.num_examples
        super().__init__(request, request.split, rows.num_shards, count, self.columns.num_classes)

    def content_hash(self) -> str:
        return hash_info(self.rows, self.split)

    def read_shard(self, shard: int) -> Iterator[Sample]:
        # In small batches, since plain iteration would divide the rows among the workers a second time.
        batches = self.rows.shard(num_shards=self.num_shards, index=shard).iter(batch_size=16)
        number = 0
        for batch in batches:
            labels = batch.get(self.columns.label) or [None] * len(batch[self.columns.image])
            for picture, label in zip(batch[self.columns.image], labels):
                name = f"{self.split}[shard {shard}, {number}] of {self.request.spec}"
                yield Sample(name, partial(open_stored, picture), label)
                number += 1


class Columns(NamedTuple):
    """Which columns hold the picture and the label, if there is one, and how many classes there are."""

    image: str
    label: str | None
    num_classes: int | None


def load(request: DataRequest, streaming: bool) -> Any:
    """`datasets.load_dataset` with one-line errors."""
    try:
        import datasets
    except ImportError:
        raise UsageError("hub:NAME needs the package datasets: pip install datasets.") from None
    name, _, config = request.path.partition(":")
    try:
        return datasets.load_dataset(name, config or None, split=request.split, streaming=streaming)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"Cannot open {request.spec} with split {request.split!r}: {reason}") from error


def find_columns(rows: Any, spec: str) -> Columns:
    """The column of type Image ("image" or "img" if there are several), and of type ClassLabel ("label" if several)."""
    import datasets

    features = rows.features or {}
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    image = _choose(images, ("image", "img"))
    if image is None:
        raise UsageError(
            f"{spec} must have one column of type Image, or one named image; its columns: {list(features)}."
        )
    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    label = _choose(classes, ("label",))
    return Columns(image, label, None if label is None else features[label].num_classes)


def read_labels(rows: Any, columns: Columns) -> np.ndarray | None:
    """Labels (N,), int64; None without them, also where they are withheld (-1, as in many test splits)."""
    if columns.label is None:
        return None
    labels = np.asarray(rows[columns.label], dtype=np.int64)
    return None if (labels < 0).any() else labels


def undecoded(rows: Any, column: str) -> Any:
    """The same rows with pictures as they are stored, so that a damaged one can be named."""
    import datasets

    return rows.cast_column(column, datasets.Image(decode=False))


def open_stored(stored: dict[str, Any]) -> Image.Image:
    """The picture of a row, not decoded: the package datasets would turn it and forget how it was stored."""
    import fsspec

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


def _choose(names: list[str], preferred: tuple[str, ...]) -> str | None:
    if len(names) == 1:
        return names[0]
    return next((name for name in preferred if name in names), None)
