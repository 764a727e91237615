"""Make a prepared copy of a data set: cropped and resized once, so that training only has to read.

    python -m ssd.data.prepare celeba:/data/celeba --res 64 --crop_preset adm --out /data/celeba64
    python -m ssd.data.prepare imagenet:/data/imagenet --res 64 --out /data/imagenet64 --workers 16
    python -m ssd.data.prepare folder:/data/scans --res '[96, 64]' --channels 1 --out /data/scans96x64
    accelerate launch train/train_ssd.py --data prepared:/data/celeba64 --res 64 --out runs/celeba64

An interrupted run continues when the same command is given again. preview.png shows the first images. manifest.json is
written last and says what the copy is.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from ..commands.errors import UsageError, exit_on_usage_error, printable
from ..commands.lock import hold_folder
from ..commands.output_paths import check_output_folder
from ..commands.parser import CommandParser
from .conversions import conversion_notes
from .dataset import PixelDataset
from .open import open_dataset
from .prepared.copying import write_copy
from .prepared.manifest import Manifest
from .prepared.reader import PreparedImages
from .sizes import size_text


@dataclass
class PrepareConfig:
    """Settings of a copy.

    Parameters
    ----------
    out : str
        A new folder for the copy, or the one of an interrupted run.
    res : int or list of int
        The side of square images in pixels, or '[height, width]'.
    channels : int
        The channels of the images: 3 for RGB, 1 for grey.
    crop_preset : str
        How pictures are cropped and resized: adm, ddim128 or sde140.
    split : str
        The part of the data: train, valid, test or all, where the data have splits.
    workers : int, optional
        The number of processes. By default there is one per core.
    skip_bad_images : bool
        Replace every unreadable image by the next readable one and list it, instead of stopping.
    background : str
        The colour over which transparent pictures are composited: a name such as white, or a code such as '#ffffff'.
    """

    out: str
    res: int | list[int] = 64
    channels: int = 3
    crop_preset: str = "adm"
    split: str = "train"
    workers: int | None = None
    skip_bad_images: bool = False
    background: str = "white"


def parse(arguments: list[str] | None) -> tuple[str, PrepareConfig]:
    """Spec and settings from the command line."""
    parser = CommandParser(
        prog="python -m ssd.data.prepare",
        description=__doc__,
        renamed={"size": "res", "preset": "crop_preset"},
    )
    parser.add_argument("spec", type=str, metavar="SPEC", help="The data set, KIND:PATH, such as celeba:/data/celeba.")
    parser.add_class_arguments(PrepareConfig)
    values = parser.parse_args(arguments).as_dict()
    return values.pop("spec"), PrepareConfig(**values)


def open_original(spec: str, config: PrepareConfig) -> PixelDataset:
    """The data set to copy, which must have 8-bit images and a length."""
    dataset = open_dataset(
        spec,
        config.res,
        config.crop_preset,
        config.split,
        config.skip_bad_images,
        config.background,
        channels=config.channels,
    )
    if not isinstance(dataset, PixelDataset) or isinstance(dataset, PreparedImages):
        raise UsageError(f"{spec} cannot be prepared: give celeba, imagenet, folder, npz or hub.")
    return dataset


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(OSError):
        spec, config = parse(arguments)
        workers = len(os.sched_getaffinity(0)) if config.workers is None else config.workers
        if workers < 1:
            raise UsageError(f"--workers must be at least 1, got {workers}.")
        dataset = open_original(spec, config)
        check_output_folder(config.out, "--out")
        try:
            with hold_folder(config.out) as takeover:
                if takeover is not None:
                    print(f"note: {takeover}")  # noqa: T201
                manifest, made = write_copy(dataset, Path(config.out), workers)
        except KeyboardInterrupt:
            raise SystemExit("interrupted: run the same command again to continue") from None
    print(f"{manifest.count} images of {size_text(dataset.size)} in {config.out}, {made} of them made now.")  # noqa: T201
    for note in conversion_notes(manifest.conversion_counts(), dataset.request.background):
        print(note)  # noqa: T201
    if manifest.bad_images:
        shown = ", ".join(manifest.bad_images[:5]) + (", .." if len(manifest.bad_images) > 5 else "")
        print(f"{len(manifest.bad_images)} unreadable images were replaced, all in manifest.json: {printable(shown)}")  # noqa: T201
    print(f"Train with  {training_flags(config.out, manifest)}")  # noqa: T201


def training_flags(out: str, manifest: Manifest) -> str:
    """How the training command reads a copy."""
    res = shlex.quote(str(manifest.size))
    grey = "" if manifest.channels == 3 else f" --channels {manifest.channels}"
    return f"--data prepared:{out} --res {res}{grey}"


if __name__ == "__main__":
    main()
