"""Sample images, a grid and an animation from a trained model.

    python sample/sample_ssd.py --model runs/digits --num 64 --seed 0 --grid grid.png --animation coarse_to_fine.gif
    python sample/sample_ssd.py --model runs/digits --num 1000 --out samples/      # one PNG per image

Image i depends on the seed and on i alone: the batch size changes speed and memory, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from ssd import SSDPipeline
from ssd.commands.errors import UsageError, exit_on_usage_error
from ssd.commands.files import whole_file
from ssd.commands.output_paths import check_output_file, check_output_folder
from ssd.commands.parser import CommandParser
from ssd.publishing.saving import load_pipeline
from ssd.sampling.many_images import SamplingSettings, generate
from ssd.sampling.pictures import CoarseToFineRecorder, image_grid, to_uint8

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
        Write every image as a PNG file into this folder, named by its number.
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
        config.check(pipeline)
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
    """Draw the images and write what was asked for; returns what was written, in words."""
    recorder = None
    if config.animation:
        recorder = CoarseToFineRecorder(
            pipeline.scheduler.size_at(-1), min(ANIMATED_IMAGES, config.num), every=-(-config.steps // ANIMATION_FRAMES)
        )
    kept = []
    for indices, images in generate(pipeline, range(config.num), config, config.batch_size, recorder):
        if config.out:
            save_pngs(images, indices, Path(config.out))
        if config.grid and indices[0] < MAX_GRID_IMAGES:
            kept.append(images.cpu())

    written = [f"{config.num} images to {config.out}"] if config.out else []
    if config.grid:
        with whole_file(Path(config.grid)) as temporary:
            image_grid(torch.cat(kept)[:MAX_GRID_IMAGES]).save(temporary)
        written.append(config.grid)
    if config.animation and recorder is not None:
        with whole_file(Path(config.animation)) as temporary:
            recorder.save(temporary)
        written.append(config.animation)
    return written


def save_pngs(images: torch.Tensor, indices: Sequence[int], folder: Path) -> None:
    """Write (B, 3, H, W) images in [-1, 1] as 8-bit PNG files named by their numbers."""
    for index, pixels in zip(indices, to_uint8(images)):
        with whole_file(folder / f"{index:06d}.png") as temporary:
            Image.fromarray(pixels).save(temporary)


if __name__ == "__main__":
    main()
