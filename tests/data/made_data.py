"""Pictures that tell their number, and shards of them."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image


def png(number: int, size: int = 8) -> bytes:
    """A picture of one colour that tells its number."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (number, number, number)).save(file, "PNG")
    return file.getvalue()


def numbers(items) -> list[int]:
    """The numbers of the pictures in items of a data set."""
    return [round((float(item["image"][0, 0, 0]) + 1) * 127.5) for item in items]


def write_tar(path: Path, files: dict[str, bytes] | Iterable[tuple[str, bytes]], mode: str = "w") -> None:
    """A tar file of these members, in this order."""
    with tarfile.open(path, mode) as tar:
        for name, data in files.items() if isinstance(files, dict) else files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
