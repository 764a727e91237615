"""`wds:PATTERN`: WebDataset shards, for data larger than one machine's disk."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from urllib.parse import urlparse

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ...commands.errors import UsageError, printable
from ..labels import Label, number_classes
from ..reading import ReadError, UnreadableImage
from ..request import DataRequest
from ..stream import ImageStream, Sample
from .shard import LABEL_EXTENSIONS, TarSample, is_local, local_path, read_samples

logger = logging.getLogger("ssd")

MAX_SHARDS = 1_000_000


@dataclass
class Tally:
    """How many there are, and which is the first."""

    count: int = 0
    first: str = ""

    def add(self, name: str) -> None:
        """Count one more."""
        self.first = self.first or name
        self.count += 1


class WebDatasetImages(ImageStream):
    """Tar files in the WebDataset convention: neighbouring files of one name are a sample (see `TarSample`).

    PATTERN is a path or an address that the package webdataset opens (https://.., and pipe:.. where it is allowed),
    with braces as in `shards-{000000..001281}.tar`. Every file whose last extension Pillow reads is a picture. Items
    have labels only where labels are asked for: then every picture needs one, in .cls, in .json under `label`, `class`
    or `cls`, or as an integer in .txt. The number of classes is the one asked for, else that of a first pass.

    Raises
    ------
    UsageError
        When webdataset is not installed, local shards are missing, no shard has a picture, a command is not allowed,
        or a picture lacks the label that is asked for.
    """

    def __init__(self, request: DataRequest) -> None:
        self.urls = expand(request.path)
        check_urls(self.urls, request)
        super().__init__(request, request.without_splits(), len(self.urls))
        self._said: set[str] = set()
        self._pictureless = Tally()
        self._numbers: dict[Label, int] = {}
        surveyed = request.labels and request.num_classes is None
        if request.labels:
            classes = number_classes(self._survey() if surveyed else range(request.num_classes or 0), request.spec)
            self._numbers = classes.numbers
            self.set_classes(classes)
        if not surveyed and next(self._read_shards(range(self.num_shards)), None) is None:
            raise self._without(Tally(), Tally())

    def content_hash(self) -> str:
        sizes = {url: local_path(url).stat().st_size for url in self.urls if is_local(url)}
        lines = (f"{local_path(url).name}\0{sizes[url]}\n" if url in sizes else f"{url}\n" for url in self.urls)
        return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()

    def read_shard(self, shard: int) -> Iterator[Sample]:
        url = self.urls[shard]
        for sample in read_samples(url):
            pictures = sample.pictures
            if len(pictures) != 1:
                self._tell(sample, url)
            for picture in pictures:
                name = f"{picture.name} in {url}"
                label = self._number(sample.label_of(picture, name), name) if self.request.labels else None
                yield Sample(name, partial(Image.open, io.BytesIO(picture.data)), label)

    def _read_shards(self, shards: range | np.ndarray) -> Iterator[Sample]:
        self._pictureless = Tally()
        yield from super()._read_shards(shards)
        if self._pictureless.count > 1:
            self._say_once("all without pictures", f"{self._pictureless.count} samples have no picture.")

    def _number(self, label: Label | None, name: str) -> int:
        """The number of the class of the picture `name`."""
        if label is None:
            raise ReadError(f"{name} has no label: add a .cls file, or train without --class_conditional.")
        if label in self._numbers:
            return self._numbers[label]
        if isinstance(label, str) and self.request.num_classes is not None:
            raise ReadError(f"The label of {name} is a name, {label!r}: leave out --num_classes to number the names.")
        raise ReadError(f"The label of {name} is {label!r}, which is not one of the {self.num_classes} classes.")

    def _survey(self) -> set[Label]:
        """All labels that occur, from a pass that reads nothing else; every picture must have one."""
        labels: set[Label] = set()
        pictures, unlabelled, pictureless = Tally(), Tally(), Tally()
        for sample, url in self._samples(LABEL_EXTENSIONS):
            if not sample.pictures:
                pictureless.add(f"{sample.key} in {url}")
            for picture in sample.pictures:
                name = f"{picture.name} in {url}"
                pictures.add(name)
                label = sample.label_of(picture, name)
                if label is None:
                    unlabelled.add(name)
                else:
                    labels.add(label)
        if unlabelled.count or not pictures.count:
            raise self._without(pictures, unlabelled)
        if pictureless.count:
            self._said |= {"without picture", "all without pictures"}
            self.opening_notes.append(
                f"{self.request.spec}: {pictureless.count} samples have no picture and are left out, the first is "
                f"{pictureless.first}."
            )
        return labels

    def _samples(self, wanted: tuple[str, ...]) -> Iterator[tuple[TarSample, str]]:
        """The samples of all shards with their shard, without what is damaged; a bar when it takes long."""
        for shard, url in enumerate(tqdm(self.urls, desc="reading labels", unit=" shards", delay=2)):
            try:
                for sample in read_samples(url, wanted):
                    yield sample, url
            except UnreadableImage as error:
                self._skip(f"shard {shard}", error)

    def _without(self, pictures: Tally, unlabelled: Tally) -> UsageError:
        """What to say when pictures are missing, or their labels."""
        spec = self.request.spec
        if not pictures.count:
            return UsageError(f"{spec} has no picture in its {self.num_shards} shards: correct the pattern.")
        if unlabelled.count == pictures.count:
            return UsageError(f"--class_conditional needs data with labels, but {spec} has none.")
        return UsageError(
            f"{unlabelled.count} of the {pictures.count} pictures of {spec} have no label, the first is "
            f"{unlabelled.first}: add a .cls file to each, or train without --class_conditional."
        )

    def _tell(self, sample: TarSample, url: str) -> None:
        """Say once what is odd about the pictures of a sample."""
        where = f"{sample.key} in {url}"
        if sample.pictures:
            names = ", ".join(picture.name for picture in sample.pictures)
            self._say_once("several pictures", f"{where} has several pictures ({names}): each is an image of its own.")
        else:
            self._pictureless.add(where)
            self._say_once("without picture", f"samples without a picture are left out, the first is {where}.")

    def _say_once(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            logger.warning("%s: %s", printable(self.request.spec), printable(text))


def expand(pattern: str) -> list[str]:
    """The shards that a pattern stands for, at most `MAX_SHARDS`.

    A longer range is refused before it is expanded.
    """
    try:
        from braceexpand import braceexpand
        from webdataset import gopen  # noqa: F401
    except ImportError:
        raise UsageError("wds:PATTERN needs the package webdataset: pip install webdataset.") from None
    too_many = UsageError(f"wds:{pattern} stands for more than {MAX_SHARDS:,} shards: correct the range.")
    ends = re.findall(r"\{(-?\d+)\.\.(-?\d+)\}", pattern)
    lengths = [
        MAX_SHARDS + 1 if len(max(pair, key=len)) > 18 else abs(int(pair[1]) - int(pair[0])) + 1 for pair in ends
    ]
    if max(lengths, default=0) > MAX_SHARDS or ("," not in pattern and math.prod(lengths) > MAX_SHARDS):
        raise too_many
    try:
        every = (url for part in pattern.split("::") for url in braceexpand(part))
        urls = [re.sub(r"(?i)^\s*pipe:", "pipe:", url) for url in islice(every, MAX_SHARDS + 1)]
    except ValueError as error:
        raise UsageError(f"wds:{pattern} cannot be expanded ({error}): close every brace.") from None
    if len(urls) > MAX_SHARDS:
        raise too_many
    return urls


def check_urls(urls: list[str], request: DataRequest) -> None:
    """Refuse commands that are not allowed, and local shards that do not exist."""
    schemes = {urlparse(url).scheme for url in urls}
    if "pipe" in schemes and not request.allow_pipe:
        raise UsageError(
            f"{request.spec} would run a shell command of yours or of whoever wrote it: check it, and add --allow_pipe."
        )
    missing = [url for url in urls if is_local(url) and not local_path(url).is_file()]
    if missing:
        raise UsageError(
            f"{len(missing)} of the {len(urls)} shards of {request.spec} do not exist, the first is {missing[0]}: "
            "correct the pattern."
        )
