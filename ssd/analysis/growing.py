"""Does a picture that grew still show what it shows? A classifier of full-size pictures is asked.

    python -m ssd.analysis.growing --model runs/digits --data digits --num 256 --grid grown.png

Every coarser level's pictures, made from images that the classifier has not seen, grow back to full resolution: by the
model with `consistency` and without, and by bicubic enlarging. A support vector machine, trained on all other images at
full size, says what each shows; the table has how often it agrees with the true label, beside what it says of the image
itself. If the model was trained on the same data set, it may have seen these images: hold them out for a verdict on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.files import whole_file
from ..commands.output_paths import check_output_file
from ..commands.parser import CommandParser
from ..data import open_dataset
from ..data.dataset import ImageDataset
from ..data.held_out import hold_out
from ..data.sizes import size_text
from ..pipelines.super_resolution import SSDSuperResolutionPipeline
from ..process.consistency import SmallPicture
from ..publishing.saving import load_pipeline
from ..sampling.many_images import SamplingSettings, generate
from ..sampling.pictures import image_grid
from ..scheduling_ssd import SSDScheduler

SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class GrowingConfig:
    """Settings of the study.

    Parameters
    ----------
    model : str
        The folder of a pipeline, such as a training run's --out.
    data : str
        A data set with labels.
    num : int
        How many of its images are held out of the classifier's training, and grow.
    steps : int, optional
        Sampling steps of the whole chain. Default: the model's usual number.
    seed : int
    grid : str, optional
        Write a PNG file: a column for each of 8 images; per level the small one, bicubic, the model, the model with
        consistency, and below all the image itself.
    device : str, optional
        The device. The default is the accelerator if there is one, else the CPU.
    """

    model: str
    data: str = "digits"
    num: int = 256
    steps: int | None = None
    seed: int = 0
    grid: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class Grown:
    """Pictures of one level, enlarged in one way.

    Attributes
    ----------
    what : str
    images : torch.Tensor
        (N, C, H, W), as the pipeline leaves them.
    distance : float
        The largest difference between these, downsampled again, and the small pictures, in [-1, 1].
    """

    what: str
    images: torch.Tensor
    distance: float


def grow_in_all_ways(
    pipeline: SSDSuperResolutionPipeline, x_0: torch.Tensor, labels: np.ndarray, settings: SamplingSettings, level: int
) -> Iterator[Grown]:
    """The pictures that images (N, C, H, W) are at a level, enlarged by repeating pixels, bicubic, and by the model."""
    process, conditional = pipeline.scheduler.process, bool(pipeline.unet.config.num_class_embeds)
    small = SmallPicture.of(process, x_0, level).picture

    def grown(what: str, images: torch.Tensor) -> Grown:
        return Grown(what, images, float((SmallPicture.of(process, images, level).picture - small).abs().max()))

    name = size_text(process.resolution.resolutions[level])
    yield grown(f"{name}, pixels repeated", F.interpolate(small, x_0.shape[-2:], mode="nearest"))
    yield grown(f"{name}, bicubic", F.interpolate(small, x_0.shape[-2:], mode="bicubic"))
    for consistency in (False, True):

        def arguments(numbers: Sequence[int], consistency: bool = consistency) -> dict[str, Any]:
            options = {
                "image": (small[list(numbers)] / 2 + 0.5).clamp(0, 1),
                "level": level,
                "consistency": consistency,
            }
            return options | ({"class_labels": labels[list(numbers)].tolist()} if conditional else {})

        parts = [images.cpu() for _, images in generate(pipeline, range(len(x_0)), settings, arguments=arguments)]
        yield grown(f"{name}, the model{', consistent' if consistency else ''}", torch.cat(parts))


def study(config: GrowingConfig) -> tuple[list[str], torch.Tensor]:
    """The lines of the table, and the rows of the grid."""
    model = load_pipeline(config.model, config.device)
    settings = SamplingSettings(steps=config.steps, seed=config.seed).prepare(model)
    sizes = model.scheduler.resolutions
    if len(sizes) == 1 or not isinstance(model.scheduler, SSDScheduler):
        raise UsageError(f"--model {config.model} is not an SSD model with several levels, from which pictures grow.")
    dataset = open_dataset(config.data, sizes[0], labels=True, channels=model.unet.config.in_channels)
    if not isinstance(dataset, ImageDataset):
        raise UsageError(f"--data {config.data} is a stream: give data with a length, such as prepared:DIR.")
    learned, held_out = hold_out(dataset, config.num)
    (seen, seen_labels), (x_0, labels) = _tensors(learned), _tensors(held_out)
    agrees = _classifier(seen, seen_labels)
    pipeline = SSDSuperResolutionPipeline.from_pipe(model)
    lines = ["| from | agrees with the label | largest difference, downsampled again |", "|---|---|---|"]
    lines.append(f"| {size_text(sizes[0])}, the image itself | {agrees(x_0, labels):.3f} | |")
    rows = []
    for level in range(1, len(sizes)):
        for grown in grow_in_all_ways(pipeline, x_0, labels, settings, level):
            lines.append(f"| {grown.what} | {agrees(grown.images, labels):.3f} | {grown.distance:.1e} |")
            rows.append(grown.images[:SHOWN])
    return lines, torch.cat([*rows, x_0[:SHOWN]])


def _classifier(images: torch.Tensor, labels: np.ndarray) -> Callable[[torch.Tensor, np.ndarray], float]:
    """How often a support vector machine that learned these images agrees with the labels of others."""
    from sklearn.svm import SVC  # a second of imports, for this command only

    machine = SVC(C=10).fit(images.flatten(1).numpy(), labels)
    return lambda others, theirs: float((machine.predict(others.clamp(-1, 1).flatten(1).numpy()) == theirs).mean())


def _tensors(part: ImageDataset) -> tuple[torch.Tensor, np.ndarray]:
    items = [part[index] for index in range(len(part))]
    return torch.stack([torch.as_tensor(item["image"]) for item in items]), np.array([item["label"] for item in items])


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error():
        parser = CommandParser(prog="python -m ssd.analysis.growing", description=__doc__)
        parser.add_class_arguments(GrowingConfig)
        config = GrowingConfig(**parser.parse_args(arguments).as_dict())
        if config.grid:
            check_output_file(config.grid, "--grid", ".png")
        lines, rows = study(config)
        if config.grid:
            with whole_file(Path(config.grid)) as temporary:
                image_grid(rows.clamp(-1, 1), columns=min(SHOWN, config.num)).save(temporary)
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
