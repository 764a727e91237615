"""One way to name a data set: KIND or KIND:PATH."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..commands.errors import UsageError
from .dataset import ImageDataset
from .decoding import background_name
from .prepared.reader import PreparedImages
from .readers.celeba import CelebA
from .readers.digits import Digits
from .readers.folder import ImageFolder
from .readers.hub import HubImages, HubStream
from .readers.image_classes import CAlphaImages, Discs, Sines
from .readers.imagenet import ImageNet
from .readers.npz import NpzImages
from .readers.wds import WebDatasetImages
from .request import DataRequest
from .sizes import check_channels, parse_size
from .stream import ImageStream
from .transforms import find_preset

DATA_SPECS: dict[str, Callable[[DataRequest], ImageDataset | ImageStream]] = {
    "digits": Digits,
    "folder:PATH": ImageFolder,
    "npz:PATH": NpzImages,
    "celeba:PATH": CelebA,
    "imagenet:PATH": ImageNet,
    "hub:NAME[:CONFIG]": HubImages,
    "hub-stream:NAME[:CONFIG]": HubStream,
    "wds:PATTERN": WebDatasetImages,
    "prepared:DIR": PreparedImages,
    "calpha:ALPHA": CAlphaImages,
    "discs": Discs,
    "sines": Sines,
}
"""How a data set is written -> what opens it. A new kind is a class in `ssd/data/readers/` and a line here."""


def open_dataset(
    spec: str,
    size: int | Sequence[int],
    preset: str = "adm",
    split: str = "train",
    skip_bad_images: bool = False,
    background: str = "white",
    *,
    labels: bool = False,
    num_classes: int | None = None,
    label_column: str | None = None,
    allow_pipe: bool = False,
    channels: int = 3,
) -> ImageDataset | ImageStream:
    """Open a data set by its name.

    Parameters
    ----------
    spec : str
        KIND or KIND:PATH, in one of the forms of `DATA_SPECS`, such as "celeba:/data/celeba".
    size : int or (height, width)
        Of the images, in pixels; an int is the side of a square.
    preset : str
        Crop and resize, one of `ssd.data.transforms.PRESETS`.
    split : str
        Part of the data, for data that have parts: "train", "valid", "test" or "all" of CelebA, "train" or "val" of
        ImageNet, "train" or "test" of the image classes, any split of a data set of the Hub.
    skip_bad_images : bool
        Replace an unreadable image by the next readable one (a stream drops it) and list it in `bad_images`, instead
        of raising.
    background : str
        The colour over which transparent pictures are composited: a name or a code such as "#ffffff".
    labels : bool
        Whether labels are wanted. Then data without them are refused, and so are data in which some images lack one.
        Streams give labels only when they are wanted.
    num_classes : int, optional
        The number of classes that there should be. Data with more are refused, classes without images are noted.
        Streams that do not state it themselves are read once for their labels without it.
    label_column : str, optional
        The column of the labels, for `hub` and `hub-stream`.
    allow_pipe : bool
        Let `wds:pipe:COMMAND` run its command in a shell.
    channels : {3, 1}
        3 for RGB, 1 for grey, which is the luma of ITU-R 601; `conversion_notes` tells how many colour pictures became
        grey.

    Returns
    -------
    ImageDataset or ImageStream
        Items are dicts of `image`, (channels, height, width) float32 in [-1, 1], and `label` (int) where the data have
        labels.
        `hub-stream` and `wds` are streams, the others have a length. All are `ssd.data.dataset.ImageData`, with
        `provenance`, `num_classes` and `class_names` (None without labels), `opening_notes`, `bad_images` and
        `conversion_notes`.

    Raises
    ------
    UsageError
        When the name is unknown, when the data are missing, empty, damaged or laid out differently, when the preset
        or the split does not fit them, and for a size or a number of channels that images cannot have.

    Examples
    --------
    >>> open_dataset("digits", size=16)[0]["image"].shape
    torch.Size([3, 16, 16])
    >>> open_dataset("digits", size=(16, 8), channels=1)[0]["image"].shape
    torch.Size([1, 16, 8])
    """
    form, path = find_form(spec)
    check_channels(channels)
    height_width = parse_size(size)
    request = DataRequest(
        spec,
        path,
        height_width,
        find_preset(preset, height_width),
        split,
        skip_bad_images,
        background=background_name(background),
        labels=labels,
        num_classes=num_classes,
        label_column=label_column,
        allow_pipe=allow_pipe,
        channels=channels,
    )
    check_request(request)
    dataset = DATA_SPECS[form](request)
    check_classes(dataset, request)
    return dataset


def find_form(spec: str) -> tuple[str, str]:
    """The form of `DATA_SPECS` that a name has, and its path."""
    kind, _, path = spec.partition(":")
    form = next((form for form in DATA_SPECS if form.partition(":")[0] == kind), None)
    if form is None or (":" in form) != bool(path):
        meant = f"did you mean folder:{spec}? Or " if Path(spec).is_dir() or (":" not in spec and "/" in spec) else ""
        raise UsageError(f"Unknown data set {spec!r}: {meant}use one of {', '.join(DATA_SPECS)}.")
    # The shell expands ~ at the beginning of a word only.
    return form, str(Path(path).expanduser()) if path.startswith("~") else path


def check_request(request: DataRequest) -> None:
    """Refuse what no data can be opened with."""
    if request.num_classes is not None and request.num_classes < 1:
        raise UsageError(f"The number of classes must be at least 1, got {request.num_classes}.")
    if request.label_column is not None and not request.spec.startswith("hub"):
        raise UsageError(f"--label_column is for hub:NAME and hub-stream:NAME, and {request.spec} has no columns.")


def check_classes(dataset: ImageDataset | ImageStream, request: DataRequest) -> None:
    """Raise a `UsageError` unless the data have the labels that are wanted, of at most as many classes."""
    if request.labels and dataset.num_classes is None:
        raise UsageError(f"--class_conditional needs data with labels, but {request.spec} has none.")
    if request.num_classes is not None and (dataset.num_classes or 0) > request.num_classes:
        raise UsageError(
            f"{request.spec} has {dataset.num_classes} classes, more than --num_classes {request.num_classes}: "
            "give their number, or leave it out."
        )
