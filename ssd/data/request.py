"""What was asked for: the arguments of `open_dataset`, checked and in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..commands.errors import UsageError
from ..operators.sizes import Size
from .sizes import written_size
from .transforms import Preset


@dataclass(frozen=True)
class DataRequest:
    """A data set as asked for; every reader gets one.

    Parameters
    ----------
    spec : str
        The whole name, KIND:PATH.
    path : str
        The part after the first colon.
    size : (height, width)
        Of the images, in pixels.
    preset : Preset
    split : str
    skip_bad_images : bool
    background : str
        The colour behind transparent pictures, as `decoding.background_name` writes it.
    labels : bool
        Whether labels are wanted; then every image must have one.
    num_classes : int, optional
        The number of classes that there should be.
    label_column : str, optional
        The column of the labels in a data set of the Hub.
    allow_pipe : bool
        Whether `wds:pipe:..` may run its shell command.
    channels : int
        3 for RGB, 1 for grey.
    """

    spec: str
    path: str
    size: Size
    preset: Preset
    split: str = "train"
    skip_bad_images: bool = False
    background: str = "white"
    labels: bool = False
    num_classes: int | None = None
    label_column: str | None = None
    allow_pipe: bool = False
    channels: int = 3

    def provenance(self, split: str, count: int | None, content_hash: str, num_classes: int | None) -> dict[str, Any]:
        """What a statistics file writes down about the images it was made of; no `channels` stands for 3."""
        return {
            "spec": self.spec,
            "preset": self.preset.name,
            "filter": self.preset.filter,
            "background": self.background,
            "split": split,
            "size": written_size(self.size),
            "count": count,
            "hash": content_hash,
            "num_classes": num_classes,
            **({} if self.channels == 3 else {"channels": self.channels}),
        }

    def choose_split(self, names: dict[str, str]) -> str:
        """The split asked for by its proper name; `names` maps all names, also alternative ones, to proper ones."""
        if self.split not in names:
            raise UsageError(f"{self.spec} has no split {self.split!r}: use one of {', '.join(names)}.")
        return names[self.split]

    def without_splits(self) -> str:
        """For data that have no splits: "all", unless a part was asked for by name."""
        return self.choose_split({"train": "all", "all": "all"})
