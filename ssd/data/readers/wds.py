"""`wds:PATTERN`: WebDataset shards, for data larger than one machine's disk."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from ...commands.errors import UsageError
from ..reading import UnreadableImage
from ..request import DataRequest
from ..stream import ImageStream, Sample

IMAGE_KEYS = ("jpg", "jpeg", "png", "webp", "ppm")


class WebDatasetImages(ImageStream):
    """Tar files in the WebDataset convention: files of one sample have the same name up to the first dot.

    PATTERN is a path or anything else that the package webdataset opens (https://.., pipe:..), with braces as in
    `shards-{000000..001281}.tar`. The picture is the file .jpg, .jpeg, .png, .webp or .ppm; the label is the number in
    .cls, or `label` in .json.

    Raises
    ------
    UsageError
        When webdataset is not installed, or local shards are missing.
    """

    def __init__(self, request: DataRequest) -> None:
        self.urls = expand(request.path)
        missing = [url for url in self.urls if is_local(url) and not Path(url).is_file()]
        if missing:
            raise UsageError(
                f"{len(missing)} of the {len(self.urls)} shards of {request.spec} do not exist, the first is "
                f"{missing[0]}: correct the pattern."
            )
        super().__init__(request, request.without_splits(), len(self.urls))

    def content_hash(self) -> str:
        lines = (f"{Path(url).name}\0{Path(url).stat().st_size if is_local(url) else url}\n" for url in self.urls)
        return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()

    def read_shard(self, shard: int) -> Iterator[Sample]:
        import webdataset

        url = self.urls[shard]
        # Which shards this process reads has been decided, so that nothing is left to split.
        samples = webdataset.WebDataset(
            [url], shardshuffle=False, nodesplitter=None, workersplitter=None, empty_check=False
        )
        try:
            for sample in samples:
                yield from as_samples(sample, url)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UnreadableImage(f"Cannot read the shard {url} ({error.args[0]}): replace it.") from error


def expand(pattern: str) -> list[str]:
    """The shards that a pattern stands for."""
    try:
        from webdataset.shardlists import expand_urls
    except ImportError:
        raise UsageError("wds:PATTERN needs the package webdataset: pip install webdataset.") from None
    return [str(url) for url in expand_urls(pattern)]


def is_local(url: str) -> bool:
    """Whether a shard is a path on this machine."""
    return "://" not in url and not url.startswith(("pipe:", "file:"))


def as_samples(files: dict[str, Any], url: str) -> Iterator[Sample]:
    """The picture among the files of one sample, if there is one."""
    data = next((files[key] for key in IMAGE_KEYS if key in files), None)
    if data is not None:
        name = f"{files['__key__']} in {url}"
        yield Sample(name, partial(Image.open, io.BytesIO(data)), read_label(files, name))


def read_label(files: dict[str, Any], name: str) -> int | None:
    """The class of a sample, if it has one."""
    try:
        if "cls" in files:
            return int(files["cls"])
        label = json.loads(files["json"]).get("label") if "json" in files else None
    except (ValueError, AttributeError) as error:
        raise UsageError(f"The label of {name} is not a number ({error}): correct the shard.") from error
    return label if isinstance(label, int) else None
