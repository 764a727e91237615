"""`imagenet:PATH`: ImageNet as a folder per class."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from ...commands.errors import UsageError
from ..files import FileList, ImageFiles, Listing, is_picture_name, skipped_notes
from ..labels import number_classes
from ..request import DataRequest

SPLITS = {"train": "train", "val": "val", "valid": "val"}
ROOTS = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
"""Where `train/` and `val/` are below PATH: directly, or as Kaggle packs them."""

WNID = re.compile(r"n\d{8}")


class ImageNet(ImageFiles):
    """ImageNet, labelled by the position of its class folder among the sorted wnids of `train/`.

    Pictures of every format that Pillow reads, by their extension; other files are counted in `opening_notes`.

    Raises
    ------
    UsageError
        For another layout.
    """

    def __init__(self, request: DataRequest) -> None:
        split = request.choose_split(SPLITS)
        root = find_root(Path(request.path), split)
        folders = class_folders(root, split)
        classes = class_folders(root, "train") if (root / "train").is_dir() else folders
        unknown = sorted(set(folders) - set(classes))
        if unknown:
            raise UsageError(
                f"{root}/{split}/{unknown[0]} has no counterpart in {root}/train: labels would be ambiguous."
            )
        names, notes = class_pictures(root / split, folders)
        numbered = number_classes(classes, request.spec)
        labels = np.array([numbered.numbers[name.partition("/")[0]] for name in names])
        super().__init__(request, FileList(root / split, names), split, labels, numbered)
        self.opening_notes += [f"{request.spec}: {note}" for note in notes]


def find_root(path: Path, split: str) -> Path:
    """The folder in which `train/` and `val/` are."""
    for root in (path / name for name in ROOTS):
        if (root / split).is_dir():
            return root
    problem = f"has no folder {split}/" if path.is_dir() else "does not exist"
    raise UsageError(f"The folder {path} {problem}: {expected_tree(path)}")


def class_folders(root: Path, split: str) -> list[str]:
    """The wnids of a split, sorted; anything else in there that is not hidden is an error."""
    names = sorted(entry.name for entry in os.scandir(root / split) if not entry.name.startswith("."))
    wrong = [name for name in names if not WNID.fullmatch(name)]
    if wrong or not names:
        problem = f"holds {wrong[0]}, which is not a class folder" if wrong else "is empty"
        raise UsageError(f"{root}/{split} {problem}: {expected_tree(root)}")
    return names


def class_pictures(folder: Path, classes: list[str]) -> tuple[list[str], list[str]]:
    """Names of the pictures of a split, WNID/NAME, sorted, also from deeper folders; and notes for people."""
    listing = Listing(folder)
    names = [name for name in listing.names if is_picture_name(name)]
    skipped = [name for name in listing.names if not is_picture_name(name)]
    notes = listing.notes + skipped_notes(skipped)
    with_pictures = {name.partition("/")[0] for name in names}
    empty = next((wnid for wnid in classes if wnid not in with_pictures), None)
    if empty is not None:
        what = "".join(f" {note}" for note in notes)
        raise UsageError(f"{folder / empty} holds no pictures: {expected_tree(folder.parent)}{what}")
    deeper = [name for name in names if name.count("/") > 1]
    if deeper:
        notes.append(
            f"{len(deeper)} of the {len(names)} pictures lie deeper than in the folder of their class, the first is "
            f"{deeper[0]}; they are read too."
        )
    return names, notes


def expected_tree(root: Path) -> str:
    """The layout in one line."""
    return (
        f"expected {root}/train/n01440764/n01440764_10026.JPEG, .., "
        f"{root}/val/n01440764/ILSVRC2012_val_00000293.JPEG, .. (a folder per class, named by its wnid)."
    )
