"""`folder:PATH`: every picture below a folder."""

from __future__ import annotations

from pathlib import Path

from ...commands.errors import UsageError
from ..files import FileList, ImageFiles, Listing, is_picture_name, map_files, skipped_notes
from ..prepared.manifest import MANIFEST, SETTINGS
from ..reading import UnreadableImage, check_header
from ..request import DataRequest


class ImageFolder(ImageFiles):
    """Pictures of any format that Pillow reads, recursively, in sorted order, without labels.

    A file is a picture if it begins like one, whatever its name. Hidden files (names that begin with a dot) are
    skipped, others that are not pictures are skipped and counted in `opening_notes`. A file that is called a picture
    but is not one is an error, so that a damaged folder is noticed before a long training.

    Raises
    ------
    UsageError
        For a folder that is missing or holds no picture, and for a file with a picture's extension that is not one.
    """

    def __init__(self, request: DataRequest) -> None:
        listing = list_folder(Path(request.path))
        files, broken, skipped = sort_out(listing, Path(request.path), request.skip_bad_images)
        super().__init__(request, files, request.without_splits())
        self.opening_notes += [f"{request.spec}: {note}" for note in listing.notes + skipped_notes(skipped)]
        for index, reason in broken.items():
            self.note_bad_index(index, reason)


def list_folder(root: Path) -> Listing:
    """All files below `root` that are not hidden."""
    if not root.is_dir():
        raise UsageError(f"The data folder {root} does not exist: give folder:PATH with a folder of images.")
    if (root / MANIFEST).exists() or (root / SETTINGS).exists():
        raise UsageError(f"{root} is a prepared copy, with {MANIFEST} in it: use prepared:{root}.")
    return Listing(root)


def sort_out(listing: Listing, root: Path, skip_bad_images: bool) -> tuple[FileList, dict[int, str], list[str]]:
    """Look at the beginning of every file.

    Returns
    -------
    FileList
        The pictures.
    dict
        Index among them and reason of each that cannot be read; unless they are to be skipped, the first is raised.
    list of str
        Names of the files that are not pictures and are not called so.
    """
    errors = list(map_files(FileList(root, listing.names), _header_error, description="checking images"))
    names: list[str] = []
    skipped: list[str] = []
    broken: dict[int, str] = {}
    for name, error in zip(listing.names, errors):
        if error is not None and not is_picture_name(name):
            skipped.append(name)
            continue
        if error is not None and not skip_bad_images:
            raise error
        if error is not None:
            broken[len(names)] = str(error)
        names.append(name)
    if not names:
        what = "".join(f" {note}" for note in listing.notes + skipped_notes(skipped))
        raise UsageError(f"The data folder {root} is empty: put images (PNG, JPEG, ..) in it or below it.{what}")
    return FileList(root, names), broken, skipped


def _header_error(file: Path) -> UnreadableImage | None:
    try:
        check_header(file)
    except UnreadableImage as error:
        return error
    return None
