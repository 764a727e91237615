"""Generated images, one side of every comparison: a folder of them, or a model that draws them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ..commands.errors import UsageError
from ..commands.settings_file import read_settings
from ..data.sizes import read_channels
from ..operators.sizes import Size
from ..pipeline_ssd import SSDPipeline
from ..pipelines.guidance import has_no_class, number_of_classes
from ..publishing.saving import load_pipeline
from ..sampling.compiling import compile_pipeline
from .config import EvalConfig
from .images import list_pictures
from .levels import LevelReduction, level_ends
from .measure import Measured, Measurement, Measurer
from .plan import MeasurePlan
from .sample_folder import SampleFolder, sampling_progress
from .sampler import Sampler
from .statistics import load_statistics


class GeneratedImages(Protocol):
    """Images to evaluate."""

    @property
    def size(self) -> Size:
        """Of every image."""

    @property
    def channels(self) -> int:
        """Of every image: 3 for RGB, 1 for grey."""

    @property
    def num(self) -> int:
        """How many there are."""

    @property
    def crop_preset(self) -> str | None:
        """How the images that the model learned from were cropped, if that is known."""

    @property
    def warnings(self) -> list[str]:
        """What a reader of the numbers should know."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the images come from: at least `num` and `labels`."""

    @property
    def reductions(self) -> Mapping[Size, LevelReduction]:
        """How the reference is reduced to each coarser level that is measured too."""

    def measure(self, measurer: Measurer, plan: MeasurePlan) -> dict[Size, Measured]:
        """Measure the images by `plan`, and the predictions at coarser levels by their sums alone."""


class FolderImages:
    """Images that somebody has made.

    Parameters
    ----------
    folder : pathlib.Path
        With PNG files of one size.
    in_colour : bool
        Read images that are all grey with three channels.
    """

    reductions: Mapping[Size, LevelReduction] = {}
    crop_preset: str | None = None

    def __init__(self, folder: Path, in_colour: bool = False) -> None:
        self.pictures, self.size, self.warnings = list_pictures(folder, in_colour)
        self.channels = self.pictures.channels
        self.num = len(self.pictures)
        self.provenance: dict[str, Any] = {"images": str(folder), "num": self.num, "labels": None}

    def measure(self, measurer: Measurer, plan: MeasurePlan) -> dict[Size, Measured]:
        """See `GeneratedImages`."""
        return {self.size: measurer.measure(self.pictures, self.num, plan, desc="generated")}


class ModelImages:
    """Images of a model: drawn into files that a stopped run continues, or measured as they come.

    Parameters
    ----------
    model : pathlib.Path
        Folder of the pipeline.
    sampler : Sampler
    num : int
        Number of images.
    folder : pathlib.Path, optional
        Where the images are written; None measures them without files.
    overwrite : bool
        Remove images of another run from `folder`.
    """

    def __init__(
        self, model: Path, sampler: Sampler, num: int, folder: Path | None = None, overwrite: bool = False
    ) -> None:
        self.sampler = sampler
        self.size, self.channels = sampler.size, sampler.channels
        self.num = num
        self.warnings: list[str] = []
        self.crop_preset = _trained_crop_preset(model)
        scheduler = sampler.pipeline.scheduler
        ends = level_ends(scheduler) if sampler.levels else {}
        self.reductions = {size: LevelReduction(scheduler, ends[size]) for size in sampler.levels}
        self._folder = folder
        self._overwrite = overwrite
        self._origin = sampler.provenance(model)
        self.provenance: dict[str, Any] = {**self._origin, "num": num}

    def measure(self, measurer: Measurer, plan: MeasurePlan) -> dict[Size, Measured]:
        """See `GeneratedImages`."""
        plans = {self.size: plan} | {size: MeasurePlan() for size in self.reductions}
        if self._folder is None:
            return self._stream(measurer, plans)
        folder = SampleFolder(self._folder, self.sampler, self.num)
        if measurer.state.is_main_process:
            folder.prepare(self._origin, self._overwrite)
        measurer.state.wait_for_everyone()
        folder.fill(measurer.state)
        return {
            size: measurer.measure(folder.pictures(size), self.num, chosen, desc="generated")
            for size, chosen in plans.items()
        }

    def _stream(self, measurer: Measurer, plans: Mapping[Size, MeasurePlan]) -> dict[Size, Measured]:
        state = measurer.state
        passes = {size: Measurement(plan, self.num, measurer.extractors) for size, plan in plans.items()}
        with sampling_progress(state, done=0, total=self.num) as progress:
            for block in measurer.blocks(self.num):
                for indices in block:
                    for size, pictures in self.sampler.draw(indices).items():
                        passes[size].add_pictures(indices, pictures)
                    progress(indices)
                for measurement in passes.values():
                    measurement.end_block()
        return {size: measurement.result(state) for size, measurement in passes.items()}


def open_generated(config: EvalConfig, device: str) -> GeneratedImages:
    """What --model or --images names; a model is loaded, and compiled if that is asked for."""
    if config.model is None:  # statistics of colour images are compared with images in colour
        in_colour = config.ref_is_statistics and read_channels(load_statistics(Path(config.ref)).provenance) == 3
        return FolderImages(Path(str(config.images)), in_colour)
    pipeline = load_pipeline(config.model, device, config.dtype)
    config = config.prepare(pipeline)  # sets the timesteps, too, which the levels need
    pipeline.set_progress_bar_config(disable=True)
    levels = tuple(level_ends(pipeline.scheduler)) if "levels" in config.metric_names else ()
    classes = _number_of_labels(pipeline, config.num_classes, config.guidance_scale)
    batch = config.network_batch
    sampler = Sampler(pipeline, config, batch, classes, config.labels, config.guidance_scale, levels)
    if config.compile:
        compile_pipeline(pipeline, [batch], batch)
    return ModelImages(Path(str(config.model)), sampler, config.num, config.image_folder, config.overwrite)


def _number_of_labels(pipeline: SSDPipeline, wanted: int | None, guidance_scale: float) -> int:
    """How many classes are drawn."""
    embeddings = pipeline.unet.config.num_class_embeds or 0
    classes = number_of_classes(pipeline.unet) if wanted is None else wanted
    if not (1 <= classes <= embeddings if embeddings else classes == 0):
        allowed = f"1..{embeddings}" if embeddings else "0, since it is unconditional"
        raise UsageError(f"--num_classes {classes} does not fit this model: use {allowed}.")
    if guidance_scale != 1 and not has_no_class(pipeline.unet):
        raise UsageError(
            f"--guidance_scale {guidance_scale} needs a class-conditional model that was trained without classes, too."
        )
    return classes


def _trained_crop_preset(model: Path) -> str | None:
    """How the training images were cropped, if the model's folder says so."""
    path = model / "train_config.yaml"
    return read_settings(path).get("crop_preset") if path.is_file() else None
