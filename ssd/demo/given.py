"""A picture that a visitor gives, read as training reads its files, at the size of the level from which it grows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from ..commands.errors import UsageError
from ..data.conversions import Conversion
from ..data.reading import UnreadableImage, read_picture, without_advice
from ..data.sizes import size_text
from ..pipelines.levels import level_to_grow_from
from ..pipelines.pictures import SMALL, fitted, read_pictures
from .model import DemoModel

BACKGROUND = "white"
CHANGES = {
    Conversion.GREYED: "made grey, as the model is",
    Conversion.COMPOSITED: f"laid over {BACKGROUND}, since it is transparent",
    Conversion.TURNED: "turned upright",
    Conversion.SCALED: "brought to 8 bits",
}


@dataclass(frozen=True)
class Given:
    """A small picture, ready to grow.

    Attributes
    ----------
    small : torch.Tensor
        (1, C, h, w) in [0, 1].
    level : int
        Whose size it has.
    note : str
        What was changed, in a sentence; empty if nothing was.
    """

    small: torch.Tensor
    level: int
    note: str


def read_given(model: DemoModel, path: str | Path) -> Given:
    """Read an uploaded file.

    Raises
    ------
    UsageError
        For what is not a picture, or cannot be read: one sentence.
    """
    if not model.edits:
        raise UsageError("This model cannot let pictures grow: it takes an SSDScheduler with several levels.")
    file = Path(path)
    try:
        decoded = read_picture(partial(Image.open, file), f"The file {file.name}", BACKGROUND, model.channels)
    except UnreadableImage as error:
        raise UsageError(f"{without_advice(str(error))}: choose a picture, such as a PNG or JPEG file.") from error
    [picture] = read_pictures(decoded.picture, model.channels)
    height, width = picture.shape[-2:]
    level = level_to_grow_from(model.pipe.scheduler, (height, width), None, None)
    size = model.sizes[level]
    batch, resized = fitted([picture], size, SMALL)
    changes = [text for kind, text in CHANGES.items() if kind in decoded.conversions]
    if resized:
        changes.append(f"resized from {size_text((height, width))} to {size_text(size)}")
    return Given(batch / 2 + 0.5, level, f"The picture was {', '.join(changes)}." if changes else "")
