"""Sample images, a grid and an animation from a trained model.

    python sample/sample_ssd.py --model runs/digits --num 64 --seed 0 --grid grid.png --animation coarse_to_fine.gif
    python sample/sample_ssd.py --model runs/digits --num 1000 --out samples/      # one PNG per image
    python sample/sample_ssd.py --model runs/digits --num 64 --sampler paper --steps 1000 --grid paper.png

A run that was stopped continues with the images that are missing in --out, where samples.json holds the settings.
Exit code 2 is a mistake of the command line, 1 a failure of the machine or of a model that gives NaN or infinity.
Image i depends on the seed and on i alone: the batch size changes speed and memory, and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssd import SSDPipeline
from ssd.commands.errors import UsageError, exit_on_usage_error
from ssd.commands.files import whole_file
from ssd.commands.lock import hold_folder
from ssd.commands.output_paths import check_output_file, check_output_folder
from ssd.commands.parser import CommandParser
from ssd.pipelines.guidance import number_of_classes
from ssd.publishing.saving import load_pipeline
from ssd.sampling.image_folder import (
    claim_image_folder,
    load_picture,
    missing_images,
    picture_name,
    sampling_settings,
    save_picture,
    write_labels,
)
from ssd.sampling.many_images import SamplingSettings, generate, image_labels
from ssd.sampling.pictures import CoarseToFineRecorder, from_uint8, image_grid, to_uint8

ANIMATED_IMAGES = 9
MAX_GRID_IMAGES = 1024
ANIMATION_FRAMES = 40


@dataclass(frozen=True, kw_only=True)
class SampleConfig(SamplingSettings):
    """Settings of the sampling command.

    Parameters
    ----------
    model : str
        The folder of a pipeline, such as a training run's --out.
    num : int
        The number of images.
    grid : str, optional
        Write a PNG file with all images (at most the first 1024).
    animation : str, optional
        Write a GIF file of the first 9 images growing level by level: x_t beside the prediction of x_0.
    out : str, optional
        Write every image as a PNG file into this folder, named by its number; grey ones have one channel. The folder
        may hold images that the same settings drew, which are not drawn again, but no others.
    overwrite : bool
        Remove numbered images of other settings from --out.
    batch_size : int, optional
        The number of images per network call at full resolution; on an accelerator coarser levels take four times as
        many per halving. The default is 2^16 pixels on a CPU and 2^19 on an accelerator. It changes speed and memory,
        not the images.
    device : str, optional
        The device: cpu, cuda, and so on. The default is the accelerator if there is one, else the CPU.
    """

    model: str
    num: int = 16
    grid: str | None = None
    animation: str | None = None
    out: str | None = None
    overwrite: bool = False
    batch_size: int | None = None
    device: str | None = None


def main() -> None:
    with exit_on_usage_error():
        parser = CommandParser(description=__doc__)
        parser.add_class_arguments(SampleConfig)
        config = SampleConfig(**parser.parse_args().as_dict())
        if config.num < 1:
            raise UsageError(f"--num must be at least 1, got {config.num}.")
        if config.batch_size is not None and config.batch_size < 1:
            raise UsageError(f"--batch_size must be at least 1, got {config.batch_size}.")
        if not (config.grid or config.animation or config.out):
            raise UsageError("Nothing to write: give at least one of --grid FILE, --animation FILE and --out FOLDER.")
        check_outputs(config)
        pipeline = load_pipeline(config.model, config.device, config.dtype)
        config = config.prepare(pipeline)
        with hold_folder(config.out) if config.out else nullcontext() as note:
            if note:
                print(f"note: {note}", file=sys.stderr)
            written = sample(config, pipeline)
    for path in written:
        print(f"wrote {path}")


def check_outputs(config: SampleConfig) -> None:
    """Raise a `UsageError` for a file or folder that could not be written after all the work."""
    if config.grid:
        check_output_file(config.grid, "--grid", ".png")
    if config.animation:
        check_output_file(config.animation, "--animation", ".gif")
    if config.out:
        check_output_folder(config.out, "--out")


def sample(config: SampleConfig, pipeline: SSDPipeline) -> list[str]:
    """Draw the images that are not there yet and write what was asked for; returns what was written, in words."""
    todo = open_folder(config, pipeline) if config.out else list(range(config.num))
    recorder, drawn = None, todo
    if config.animation:
        animated = min(ANIMATED_IMAGES, config.num)
        every = -(-len(pipeline.scheduler.timesteps) // ANIMATION_FRAMES)
        recorder = CoarseToFineRecorder(pipeline.scheduler.size_at(-1), animated, every)
        drawn = sorted({*range(animated), *todo})  # an animation needs the states of images that are there, too
    unsaved, shown = set(todo), {}
    for indices, images in generate(pipeline, drawn, config, config.batch_size, recorder):
        for index, pixels in zip(indices, to_uint8(images)):
            if config.out and index in unsaved:
                save_picture(Path(config.out) / picture_name(index), pixels)
            if config.grid and index < MAX_GRID_IMAGES:
                shown[index] = pixels

    written = []
    if config.out:
        there = config.num - len(todo)
        written.append(f"{config.num} images to {config.out}" + (f"; {there} of them were there" if there else ""))
    if config.grid:
        with whole_file(Path(config.grid)) as temporary:
            image_grid(from_uint8(np.stack(grid_pictures(config, shown)))).save(temporary)
        written.append(config.grid)
    if config.animation and recorder is not None:
        with whole_file(Path(config.animation)) as temporary:
            recorder.save(temporary)
        written.append(config.animation)
    return written


def open_folder(config: SampleConfig, pipeline: SSDPipeline) -> list[int]:
    """Make --out a folder of these images alone; returns the numbers of those that are missing."""
    folder = Path(str(config.out))
    settings = sampling_settings(Path(config.model), config)
    claim_image_folder(folder, [folder], settings, config.num, config.overwrite)
    write_labels(folder, "balanced", image_labels(range(config.num), number_of_classes(pipeline.unet)))
    return missing_images([folder], config.num)


def grid_pictures(config: SampleConfig, drawn: Mapping[int, np.ndarray]) -> list[np.ndarray]:
    """The first images, as drawn or from --out."""
    pictures = []
    for index in range(min(config.num, MAX_GRID_IMAGES)):
        if index in drawn:
            pictures.append(drawn[index])
        else:
            pictures.append(load_picture(Path(str(config.out)) / picture_name(index)))
    return pictures


if __name__ == "__main__":
    main()
