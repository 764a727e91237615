"""`folder:PATH`: every picture below a folder."""

from __future__ import annotations

from pathlib import Path

from ...commands.errors import UsageError
from ..files import FileList, ImageFiles, map_files, names_below
from ..prepared.manifest import MANIFEST, SETTINGS
from ..reading import UnreadableImage, check_header
from ..request import DataRequest


class ImageFolder(ImageFiles):
    """Pictures of any format that Pillow reads, recursively, in sorted order, without labels.

    Hidden files (names that begin with a dot) are skipped; any other file that is not a picture is an error,
    so that a wrong folder is noticed before a long training.

    Raises
    ------
    UsageError
        For a folder that is missing or empty, and for a file that is not an image.
    """

    def __init__(self, request: DataRequest) -> None:
        files = find_files(Path(request.path))
        broken = dict(broken_headers(files, skip=request.skip_bad_images))
        super().__init__(request, files, request.without_splits())
        for index, reason in broken.items():
            self.note_bad_index(index, reason)


def find_files(root: Path) -> FileList:
    """All files below `root` that are not hidden, sorted by path."""
    if not root.is_dir():
        raise UsageError(f"The data folder {root} does not exist: give folder:PATH with a folder of images.")
    if (root / MANIFEST).exists() or (root / SETTINGS).exists():
        raise UsageError(f"{root} is a prepared copy, with {MANIFEST} in it: use prepared:{root}.")
    files = FileList(root, names_below(root))
    if not files:
        raise UsageError(f"The data folder {root} is empty: put images (PNG, JPEG, ..) in it or below it.")
    return files


def broken_headers(files: FileList, skip: bool) -> list[tuple[int, str]]:
    """Index and reason of every file that is not a picture; unless they are skipped, the first of them is raised."""
    broken = []
    for index, error in enumerate(map_files(files, _header_error, description="checking images")):
        if error is not None and not skip:
            raise error
        if error is not None:
            broken.append((index, str(error)))
    return broken


def _header_error(file: Path) -> UnreadableImage | None:
    try:
        check_header(file)
    except UnreadableImage as error:
        return error
    return None
