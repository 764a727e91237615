"""One way to name a data set: KIND or KIND:PATH."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.data import Dataset

from ..errors import UsageError
from .digits import Digits
from .folder import ImageFolder
from .npz import NpzImages

DATA_SPECS: dict[str, str] = {
    "digits": "handwritten digits inside scikit-learn, no download",
    "folder:PATH": "every image below a folder",
    "npz:PATH": "array 'images' (N, H, W, 3), uint8, in a NumPy archive",
}

_OPENERS: dict[str, Callable[[str, int], Dataset]] = {
    "digits": lambda path, size: Digits(size),
    "folder": ImageFolder,
    "npz": NpzImages,
}


def open_dataset(spec: str, size: int) -> Dataset:
    """Open a data set by its name.

    Parameters
    ----------
    spec : str
        One of `DATA_SPECS`: "digits", "folder:PATH" or "npz:PATH".
    size : int
        Side of the square images, in pixels.

    Returns
    -------
    torch.utils.data.Dataset
        With a length; items are dicts of `image`, (3, size, size) float32 in [-1, 1], and `label` (int) where the
        data have labels.

    Raises
    ------
    UsageError
        When the name is unknown, or the data are missing, empty or damaged.

    Examples
    --------
    >>> open_dataset("digits", size=16)[0]["image"].shape
    torch.Size([3, 16, 16])
    """
    kind, _, path = spec.partition(":")
    takes_path = f"{kind}:PATH" in DATA_SPECS
    if kind not in _OPENERS or takes_path != bool(path):
        raise UsageError(f"Unknown data set {spec!r}: use one of {', '.join(DATA_SPECS)}.")
    return _OPENERS[kind](path, size)
