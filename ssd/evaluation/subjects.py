"""What is evaluated: a folder of images, or a model that draws them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState

from ..commands.errors import UsageError
from ..pipeline_ssd import SSDPipeline
from ..pipelines.guidance import number_of_classes
from ..publishing.saving import load_pipeline
from ..sampling.compiling import compile_pipeline
from .config import EvalConfig
from .features.extractors import Extractor
from .images import PictureFiles, Size, list_pictures
from .levels import LevelReduction, level_ends
from .measure import Measured, Measurement, Plan, measure
from .processes import share, work_blocks
from .sampling import (
    FULL,
    Sampler,
    level_folder,
    picture_name,
    prepare_folder,
    sample_to_folder,
    save_labels,
    with_progress,
)

GRID_IMAGES = 64
PATCHED_IMAGES = 4096


class FolderSubject:
    """Images that somebody has made.

    Parameters
    ----------
    config : EvalConfig
        With `images`.
    """

    def __init__(self, config: EvalConfig) -> None:
        self.config = config
        self.pictures, self.size, self.notes = list_pictures(str(config.images))
        self.reductions: dict[Size, LevelReduction] = {}
        self.preset: str | None = None
        self.provenance: dict[str, Any] = {"images": str(config.images), "num": len(self.pictures), "labels": None}

    def measure(self, extractors: Sequence[Extractor], state: PartialState) -> dict[str, Measured]:
        """Measurements by the name of the kind of image; here only `generated`."""
        plan = main_plan(self.config, len(self.pictures))
        return {FULL: measure_files(self.config, self.pictures, plan, extractors, state)}


class ModelSubject:
    """A model, whose images are drawn into files that a stopped run continues, or measured as they come.

    Parameters
    ----------
    config : EvalConfig
        With `model`.
    device : str
    """

    def __init__(self, config: EvalConfig, device: str) -> None:
        pipeline = load_pipeline(str(config.model), device, config.dtype)
        config.check(pipeline)  # sets the timesteps, which the levels need
        pipeline.set_progress_bar_config(disable=True)
        self.config = config
        self.pipeline = pipeline
        self.size = pipeline.scheduler.size_at(-1)
        self.notes: list[str] = []
        levels = level_ends(pipeline.scheduler) if "levels" in config.metric_names else {}
        self.reductions = {size: LevelReduction(pipeline.scheduler, s) for size, s in levels.items()}
        classes = _number_of_labels(config, pipeline)
        options = (config.network_batch, classes, config.labels, config.guidance_scale, tuple(levels))
        self.sampler = Sampler(pipeline, config, *options)
        if config.compile:
            compile_pipeline(pipeline, [config.network_batch], config.network_batch)
        self._origin = self.sampler.provenance(str(config.model))
        self.provenance: dict[str, Any] = {**self._origin, "num": config.num}

    @property
    def preset(self) -> str | None:
        """How the training images were prepared, if the model's folder says so."""
        path = Path(str(self.config.model)) / "train_config.yaml"
        settings = yaml.safe_load(path.read_text()) if path.is_file() else None
        return settings.get("crop_preset") if isinstance(settings, dict) else None

    def measure(self, extractors: Sequence[Extractor], state: PartialState) -> dict[str, Measured]:
        """Measurements of `generated`, and of `generated_HxW` for every coarser level asked for."""
        folder = self.config.image_folder
        return self._stream(extractors, state) if folder is None else self._files(folder, extractors, state)

    def _plans(self) -> dict[str, Plan]:
        plans = {FULL: main_plan(self.config, self.config.num)}
        return plans | {level_folder(size): Plan(self.config.num) for size in self.reductions}

    def _files(self, folder: Path, extractors: Sequence[Extractor], state: PartialState) -> dict[str, Measured]:
        if state.is_main_process:
            prepare_folder(folder, self._origin, self.config.overwrite)
            save_labels(folder, self.sampler, self.config.num)
        state.wait_for_everyone()
        sample_to_folder(self.sampler, folder, self.config.num, state)
        measured = {}
        for name, plan in self._plans().items():
            files = PictureFiles([folder / name / picture_name(i) for i in range(self.config.num)])
            measured[name] = measure_files(self.config, files, plan, extractors, state)
        return measured

    def _stream(self, extractors: Sequence[Extractor], state: PartialState) -> dict[str, Measured]:
        measurements = {name: Measurement(plan, extractors) for name, plan in self._plans().items()}
        blocks = share(work_blocks(self.config.num, self.config.batch_size), state)
        batches = [batch for block in blocks for batch in block]
        arriving = with_progress(batches, state, done=0, total=self.config.num)
        for block in blocks:
            for _ in block:
                indices = next(arriving)
                for name, pictures in self.sampler.draw(indices).items():
                    measurements[name].add_pictures(indices, pictures)
            for measurement in measurements.values():
                measurement.end_block()
        next(arriving, None)  # close the bar
        return {name: measurement.result(state) for name, measurement in measurements.items()}


def main_plan(config: EvalConfig, count: int) -> Plan:
    """What is measured of generated images at full size."""
    return Plan(count, config.keep, PATCHED_IMAGES, GRID_IMAGES, keep_pixels=config.ref == "digits")


def measure_files(
    config: EvalConfig, files: PictureFiles, plan: Plan, extractors: Sequence[Extractor], state: PartialState
) -> Measured:
    """Measure picture files."""
    measurement = Measurement(plan, extractors)
    return measure(files, measurement, state, config.batch_size, config.num_workers, desc="generated")


def _number_of_labels(config: EvalConfig, pipeline: SSDPipeline) -> int:
    """How many classes are drawn."""
    embeddings = pipeline.unet.config.num_class_embeds or 0
    classes = number_of_classes(pipeline.unet) if config.num_classes is None else config.num_classes
    if not (1 <= classes <= embeddings if embeddings else classes == 0):
        allowed = f"1..{embeddings}" if embeddings else "0, since it is unconditional"
        raise UsageError(f"--num_classes {classes} does not fit this model: use {allowed}.")
    if config.guidance_scale != 1 and not embeddings:
        raise UsageError(f"--guidance_scale {config.guidance_scale} needs a class-conditional model.")
    return classes
