"""One WebDataset shard: a tar file read from front to back, its members grouped into samples."""

from __future__ import annotations

import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse
from urllib.request import url2pathname

from ..files import extension_of, is_picture_name
from ..labels import Label
from ..reading import ReadError, UnreadableImage

LABEL_EXTENSIONS = (".cls", ".json", ".txt")
"""Where the label of a sample may be, the first that is there counts."""

LABEL_FIELDS = ("label", "class", "cls")
"""What the label is called in .json."""

TAR_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


class Member(NamedTuple):
    """A file in a shard.

    Its key is the name without the last extension; `data` is empty where nobody wants it.
    """

    name: str
    key: str
    data: bytes


@dataclass
class TarSample:
    """Neighbouring members of which the keys are equal, or begin with the shortest one and a dot.

    So `a.cls` belongs to `a.jpg` and to `a.img.jpg`, while `img.v1.0001.png` and `img.v1.0002.png` are two samples.

    Parameters
    ----------
    key : str
        The shortest key.
    members : list of Member
    """

    key: str
    members: list[Member] = field(default_factory=list)

    @property
    def pictures(self) -> list[Member]:
        """The members whose extension Pillow reads."""
        return [member for member in self.members if is_picture_name(member.name)]

    def accepts(self, key: str) -> bool:
        """Whether a member of that key belongs to this sample."""
        return key == self.key or key.startswith(f"{self.key}.") or self.key.startswith(f"{key}.")

    def add(self, member: Member) -> None:
        """Take a member that belongs here."""
        self.members.append(member)
        self.key = min(self.key, member.key, key=len)

    def label_of(self, picture: Member, where: str) -> Label | None:
        """The label whose key is the picture's or the longest beginning of it; `where` names the picture."""
        for key in _beginnings(picture.key):
            for extension in LABEL_EXTENSIONS:
                for member in self.members:
                    if member.key == key and extension_of(member.name) == extension:
                        label = parse_label(extension, member.data, where)
                        if label is not None:
                            return label
        return None


def read_samples(url: str, wanted: Collection[str] | None = None) -> Iterator[TarSample]:
    """The samples of a shard, in order.

    Parameters
    ----------
    url : str
        A path, or an address that the package webdataset opens.
    wanted : collection of str, optional
        Extensions of the members whose content is read; None reads all.

    Raises
    ------
    UnreadableImage
        When the shard is damaged.
    ReadError
        When the files of a sample are not next to each other, and for a name that occurs twice.
    """
    check = _Adjacency(url)
    sample = None
    for member in _read_members(url, wanted):
        if sample is None or not sample.accepts(member.key):
            if sample is not None:
                check.close(sample)
                yield sample
            sample = TarSample(member.key)
        check.see(member)
        sample.add(member)
    if sample is not None:
        yield sample


def parse_label(extension: str, data: bytes, where: str) -> Label | None:
    """The class in a file of that extension: a number or a name; None where it holds none.

    Numbers may be text. A .txt file that holds anything but a number is a caption, not a label.

    Raises
    ------
    ReadError
        For .json that is damaged, and for a label that is neither an integer >= 0 nor a name.

    Examples
    --------
    >>> parse_label(".cls", b"3", "a.png"), parse_label(".json", b'{"class": "cat"}', "a.png")
    (3, 'cat')
    """
    try:
        text = data.decode("utf-8-sig").strip()
        content = json.loads(text) if extension == ".json" else text
    except ValueError as error:
        if extension == ".txt":
            return None
        raise ReadError(f"The label of {where} cannot be read ({error}): correct its {extension} file.") from error
    if extension == ".json":
        fields = content if isinstance(content, dict) else {}
        content = next((fields[name] for name in LABEL_FIELDS if fields.get(name) is not None), None)
    if isinstance(content, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", content.strip()):
        content = int(content)
    if content is None or content == "" or (extension == ".txt" and isinstance(content, str)):
        return None
    if isinstance(content, bool) or not isinstance(content, int | str) or (isinstance(content, int) and content < 0):
        raise ReadError(f"The label of {where} is {content!r}: use an integer from 0 or a name.")
    return content


def is_local(url: str) -> bool:
    """Whether a shard is a file of this machine."""
    scheme = urlparse(url).scheme
    return scheme == "file" or (scheme != "pipe" and "://" not in url)


def local_path(url: str) -> Path:
    """The path of a shard on this machine."""
    return Path(url2pathname(urlparse(url).path)) if urlparse(url).scheme == "file" else Path(url)


class _Adjacency:
    """Notices members that come too late for the sample they belong to, which would lose its label."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.names: set[str] = set()
        self.closed: set[str] = set()  # keys of finished samples
        self.with_pictures: set[str] = set()  # beginnings of keys of pictures in finished samples
        self.without_pictures: set[str] = set()  # keys of finished samples that have labels alone

    def see(self, member: Member) -> None:
        if member.name in self.names:
            raise ReadError(f"{self.url} has two members of the name {member.name}: write the shard again.")
        self.names.add(member.name)
        picture = is_picture_name(member.name)
        late = not picture and member.key in self.with_pictures
        orphaned = picture and any(key in self.without_pictures for key in _beginnings(member.key))
        if member.key in self.closed or late or orphaned:
            raise ReadError(
                f"The files of the sample {member.key} are not next to each other in {self.url}: write the shard in "
                "the order of the names, as  tar --sort=name  does."
            )

    def close(self, sample: TarSample) -> None:
        self.closed.update(member.key for member in sample.members)
        pictures = sample.pictures
        self.with_pictures.update(key for picture in pictures for key in _beginnings(picture.key))
        if not pictures:
            self.without_pictures.update(member.key for member in sample.members)


def _beginnings(key: str) -> Iterator[str]:
    """The key, and what is left without its last parts, one after the other."""
    yield key
    folder, slash, name = key.rpartition("/")
    while "." in name:
        name = name.rpartition(".")[0]
        yield folder + slash + name


def _read_members(url: str, wanted: Collection[str] | None) -> Iterator[Member]:
    """The files of a shard that are not hidden."""
    try:
        with _open_tar(url) as tar:
            for info in tar:
                folder, slash, base = info.name.rpartition("/")
                if info.isdir() or base.startswith("."):
                    continue
                if re.search(r"(^|\.)__\w+__(\.|$)", base):
                    raise ReadError(f"{url} has a member {info.name}: names like __key__ are reserved, rename it.")
                if not info.isfile():
                    raise ReadError(f"{info.name} in {url} is not a file but a link: write the shard with real files.")
                stream = tar.extractfile(info) if wanted is None or extension_of(base) in wanted else None
                data = b"" if stream is None else stream.read()
                yield Member(info.name, folder + slash + base.removesuffix(Path(base).suffix), data)
    except TAR_ERRORS as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
        raise UnreadableImage(f"Cannot read the shard {url} ({reason}): replace it.") from error


@contextmanager
def _open_tar(url: str) -> Iterator[tarfile.TarFile]:
    """The shard, read from front to back; in a file of this machine what is not wanted is passed over."""
    if is_local(url):
        with tarfile.open(local_path(url), "r:*", tarinfo=_StrictHeader) as tar:
            yield tar
        return
    from webdataset.gopen import gopen, set_options

    try:
        stream = gopen(url)
    except ValueError as error:
        raise ReadError(f"{url} cannot be opened ({error}): use a path, or an address such as https://..") from None
    try:
        with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_StrictHeader) as tar:
            yield tar
        while stream.read(2**16):  # what follows the end mark, so that a command can end by itself
            pass
    except BaseException:  # nobody reads on, and how the command ends does not matter
        set_options(stream, ignore_errors=True)
        raise
    finally:
        stream.close()


class _StrictHeader(tarfile.TarInfo):
    """A header of a tar file. Python takes damage between two members for the end, which is marked by zeros."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} after {tar.offset} bytes") from None
