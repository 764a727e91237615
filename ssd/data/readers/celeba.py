"""`celeba:PATH`: the aligned CelebA pictures with their official split."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

from ...commands.errors import UsageError
from ..files import FileList, ImageFiles
from ..request import DataRequest

SPLITS = {"train": "train", "valid": "valid", "val": "valid", "test": "test", "all": "all"}
PARTITIONS = ("train", "valid", "test")
"""What the numbers 0, 1, 2 in the official list mean."""

PICTURE_FOLDERS = (
    "img_align_celeba",
    "celeba/img_align_celeba",
    "img_align_celeba/img_align_celeba",
    "Img/img_align_celeba",
    "img_align_celeba_png",
)
PICTURE = re.compile(r"\d{6}\.(jpg|jpeg|png)", re.IGNORECASE)
LIST = "list_eval_partition"


class CelebA(ImageFiles):
    """Aligned CelebA, 178 x 218 pixels, without labels; splits train (162,770), valid (19,867), test (19,962), all.

    PATH is the folder that holds `img_align_celeba/` and `list_eval_partition.txt`, or `img_align_celeba/` itself with
    the list in it or next to it. The folders `Img/` and `Eval/` of the official download, the folder `celeba/` of
    torchvision, Kaggle's doubled folder and its .csv list, and pictures extracted as PNG are found too. Pictures that
    the list does not name are counted in `opening_notes`.

    Raises
    ------
    UsageError
        For another layout, a damaged list, or listed pictures that are missing.
    """

    def __init__(self, request: DataRequest) -> None:
        split = request.choose_split(SPLITS)
        root = Path(request.path)
        folder = find_pictures(root)
        listing = find_list(root, folder)
        names, notes = choose_names(folder, listing, split, allow_missing=request.skip_bad_images)
        super().__init__(request, FileList(folder, names), split)
        self.opening_notes += [f"{request.spec}: {note}" for note in notes]


def find_pictures(root: Path) -> Path:
    """The folder of the pictures: one of the usual places below `root`, or `root` itself."""
    for folder in (*(root / name for name in PICTURE_FOLDERS), root):
        if folder.is_dir() and any(PICTURE.fullmatch(entry.name) for entry in os.scandir(folder)):
            return folder
    problem = "holds no CelebA pictures" if root.is_dir() else "does not exist"
    raise UsageError(f"The folder {root} {problem}: {expected_tree(root)}")


def find_list(root: Path, folder: Path) -> Path | None:
    """The file that says which picture belongs to which split."""
    places = (root, folder, folder.parent, root / "Eval", folder.parent.parent / "Eval")
    candidates = (place / f"{LIST}{suffix}" for place in places for suffix in (".txt", ".csv"))
    return next((file for file in candidates if file.is_file()), None)


def choose_names(folder: Path, listing: Path | None, split: str, allow_missing: bool) -> tuple[list[str], list[str]]:
    """File names of a split, in the order of the list, and notes; pictures are matched by number, so that PNGs do."""
    present = {Path(entry.name).stem: entry.name for entry in os.scandir(folder) if PICTURE.fullmatch(entry.name)}
    if listing is None:
        if split == "all":
            return sorted(present.values()), []
        raise UsageError(
            f"There is no {LIST}.txt for the pictures in {folder}: {expected_tree(folder.parent)} "
            "Or use all pictures with the split 'all'."
        )
    entries = read_list(listing)
    listed = [name for name, part in entries if split in ("all", part)]
    missing = [name for name in listed if Path(name).stem not in present]
    if missing and not allow_missing:
        raise UsageError(
            f"{len(missing)} of the {len(listed)} pictures that {listing} lists for {split!r} are not in {folder}, "
            f"the first is {missing[0]}: extract the archive again, or use --skip_bad_images."
        )
    if not listed:
        raise UsageError(f"{listing} lists no picture for the split {split!r}: use the official file.")
    unlisted = sorted(set(present) - {Path(name).stem for name, _ in entries})
    notes = [f"{len(unlisted)} pictures are not in {listing}, the first is {present[unlisted[0]]}."] if unlisted else []
    return [present.get(Path(name).stem, name) for name in listed], notes


def read_list(listing: Path) -> list[tuple[str, str]]:
    """(file name, split) for each row "000001.jpg 0", "000001.jpg,0" or, with the index of a table, "0,000001.jpg,0".

    Byte order marks, quotes and either kind of line end are understood. Before the first picture there may be the
    number of pictures and the names of the columns.
    """
    entries: list[tuple[str, str]] = []
    lines = listing.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        separated = next(csv.reader([line])) if "," in line else line.split()
        cells = [cell.strip().strip("\"'") for cell in separated]
        if not any(cells) or (not entries and _is_head(cells)):
            continue
        name, part = cells[-2:] if len(cells) == 2 or (len(cells) == 3 and cells[0].isdecimal()) else ("", "")
        if not PICTURE.fullmatch(name) or part not in ("0", "1", "2"):
            raise UsageError(f"Line {number} of {listing} is {line!r}, not like '000001.jpg 0': use the official file.")
        entries.append((name, PARTITIONS[int(part)]))
    return entries


def _is_head(cells: list[str]) -> bool:
    """Whether a row stands before the pictures: their number alone, or the names of the columns."""
    return (len(cells) == 1 and cells[0].isdecimal()) or {"image_id", "partition"} <= set(cells)


def expected_tree(root: Path) -> str:
    """The layout in one line."""
    return (
        f"expected {root}/{LIST}.txt, {root}/img_align_celeba/000001.jpg, {root}/img_align_celeba/000002.jpg, .. "
        "(CelebA's aligned and cropped images)."
    )
