"""Reading one picture, and the errors that name it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ..commands.errors import UsageError
from ..operators.sizes import Size
from .decoding import PILLOW_ERRORS, Decoded, decode, upright_size


class ReadError(UsageError):
    """Data that cannot be used, noticed while they are read.

    A `DataLoader` rebuilds the exception of a worker process from its printed traceback; only the message is kept,
    so that it stays one line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.rpartition(f"{type(self).__name__}: ")[2].split()))


class UnreadableImage(ReadError):
    """One picture cannot be read: the error that `skip_bad_images` turns into a warning."""


def read_picture(open_image: Callable[[], Image.Image], name: str, background: str, channels: int = 3) -> Decoded:
    """Open a picture and decode it by `ssd.data.decoding.decode`.

    Raises
    ------
    UnreadableImage
        Naming the picture by `name`.
    """
    with _naming(name), open_image() as image:
        return decode(image, background, channels)


def read_size(open_image: Callable[[], Image.Image], name: str) -> Size | UnreadableImage:
    """(height, width) of a picture as a viewer of it sees it, from its header; or the error that names it."""
    try:
        with _naming(name), open_image() as image:
            width, height = upright_size(image)
    except UnreadableImage as error:
        return error
    return height, width


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn what Pillow raises into an `UnreadableImage`."""
    try:
        yield
    except UnidentifiedImageError:
        raise UnreadableImage(f"{name} is not an image: replace or remove it, or use --skip_bad_images.") from None
    except PILLOW_ERRORS as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadableImage(
            f"Cannot read the image {name} ({reason}): replace or remove it, or use --skip_bad_images."
        ) from error


def check_header(file: Path) -> None:
    """Raise `UnreadableImage` unless the file begins like a picture; its pixels are not read."""
    try:
        Image.open(file).close()
    except UnidentifiedImageError:
        raise UnreadableImage(
            f"{file} is not an image: remove it from the data folder, or hide it as .{file.name}."
        ) from None
    except PILLOW_ERRORS as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadableImage(f"Cannot open {file} ({reason}): make it readable or remove it.") from error


def without_advice(message: str) -> str:
    """The message of an `UnreadableImage` up to the advice after its last colon, for those who continue without it."""
    return message.rpartition(": ")[0]
