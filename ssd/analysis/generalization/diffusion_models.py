"""SSD models: two of them trained by train/train_ssd.py on different images, and compared level by level.

An SSD model is told its noise level, and sees strong noise at coarse resolutions. So it is asked at a few timesteps
of every level, x_t -> D_s x_0, where sigma_t / (2 a_t) is the noise in the scale of [0, 1]; and beside the samples its
last predictions at every coarser level are compared. Image i of both is drawn from the noise of (seed, i).
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ssd

from ...commands.errors import RunFailed, UsageError
from ...commands.files import whole_file
from ...evaluation.denoising import Denoiser
from ...evaluation.levels import LevelRecorder
from ...operators.sizes import Size
from ...pipeline_ssd import SSDPipeline
from ...publishing.saving import load_pipeline
from ...sampling.many_images import SamplingSettings, default_batch_size, draw, split_evenly
from ...sampling.pictures import to_uint8
from ...seeding import torch_generator
from ..denoisers.denoising import Denoise, Probe
from ..denoisers.similarity import cosines, off_diagonal, paired_cosines
from .config import StudyConfig
from .likeness import quantiles
from .pair import DenoiserPair, Two

ROOT = Path(ssd.__file__).parent.parent
SCRIPT = "train/train_ssd.py"

PER_LEVEL = 3
"""Timesteps of every level at which denoising is measured: at 1/6, 3/6 and 5/6 of its range."""

DEFAULTS: dict[str, Any] = {
    "levels": 2,
    "block_out_channels": [32, 64],
    "attention_resolutions": [],
    "learning_rate": 1e-3,
    "ema_decays": [0.995],
    "random_flip": False,
    "num_workers": 0,
    "sample_every": 0,
    "checkpoints_total_limit": 1,
    "report_to": "none",
}
"""Settings of training, small; --settings changes them."""


def train_flags(config: StudyConfig, archive: Path, out: Path, seed: int) -> list[str]:
    """The flags of train/train_ssd.py for one model."""
    settings = DEFAULTS | config.settings
    settings |= {
        "data": f"npz:{archive}",
        "res": config.res,
        "channels": config.channels,
        "out": str(out),
        "seed": seed,
    }
    settings |= {"max_steps": config.steps, "global_batch_size": config.batch}
    words = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return [word for key, value in words.items() for word in (f"--{key}", value)]


def check_training() -> None:
    """Raise a `UsageError` where the training command is not at hand."""
    if not (ROOT / SCRIPT).is_file():
        raise UsageError(
            f"--denoiser ssd runs {SCRIPT}, which is not in {ROOT}: run it from a clone of the repository."
        )


def model_pair(config: StudyConfig, train: Two, mean: float, seed: int, name: str) -> DenoiserPair:
    """Train two models of the seeds 2 seed and 2 seed + 1, and draw their samples; `mean` does not matter to them."""
    pipelines = [
        trained_model(config, images, 2 * seed + number, f"{name}_{number}") for number, images in enumerate(train)
    ]
    drawn = [draw_levels(pipeline, config.samples, seed) for pipeline in pipelines]
    sizes = list(drawn[0])
    levels = {
        f"{height}x{width}": level_likeness(*(images[height, width] for images in drawn)) for height, width in sizes
    }
    samples = [images[max(images)] for images in drawn]
    first, second = (level_denoiser(pipeline) for pipeline in pipelines)

    def probes(images: torch.Tensor, seed: int) -> list[Probe]:
        return level_probes(pipelines[0], images, seed)

    return DenoiserPair((first, second), (samples[0], samples[1]), probes, {"levels": levels})


def trained_model(config: StudyConfig, images: torch.Tensor, seed: int, name: str) -> SSDPipeline:
    """The pipeline that training makes of these images; what is there of an interrupted run is continued."""
    folder = Path(config.out) / "models" / name
    archive = folder.with_suffix(".npz")
    if not archive.exists():
        with whole_file(archive) as temporary:
            np.savez_compressed(temporary, images=to_uint8(2 * images - 1))
    flags = [*train_flags(config, archive, folder, seed), "--resume"]
    with folder.with_suffix(".log").open("a", encoding="utf-8") as words:
        done = subprocess.run([sys.executable, str(ROOT / SCRIPT), *flags], stdout=words)
    if done.returncode == 2:
        raise UsageError(f"{SCRIPT} refuses these settings: its message is above.")
    if done.returncode:
        raise RunFailed(f"{SCRIPT} failed with exit code {done.returncode}: its message is above.")
    steps = max((int(path.name.removeprefix("step_")) for path in folder.glob("checkpoints/step_*")), default=0)
    if steps < config.steps:
        raise RunFailed(
            f"Training {name} was stopped after {steps} of {config.steps} steps: give the same command again."
        )
    pipeline = load_pipeline(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_levels(pipeline: SSDPipeline, num: int, seed: int) -> dict[Size, torch.Tensor]:
    """Samples, and the last predictions at every coarser level, in the scale of [0, 1]: size -> (num, C, h, w)."""
    settings = SamplingSettings(seed=seed).prepare(pipeline)
    parts: dict[Size, list[torch.Tensor]] = {}
    for part in split_evenly(range(num), max(3, default_batch_size(pipeline))):
        recorder = LevelRecorder()
        images = draw(pipeline, part, settings, callback=recorder)
        finest = (images.shape[-2], images.shape[-1])
        for size, found in (recorder.predictions | {finest: images}).items():
            parts.setdefault(size, []).append((found[: len(part)] + 1) / 2)
    return {size: torch.cat(found) for size, found in parts.items()}


def level_likeness(first: torch.Tensor, second: torch.Tensor) -> dict[str, float]:
    """Median cosines of two models' predictions at one level, from the same noise and from different noise."""
    pair, different = paired_cosines(first, second), off_diagonal(cosines(first, second))
    return {"pair": quantiles(pair)[1], "different_seeds": float(different.median())}


def level_denoiser(pipeline: SSDPipeline) -> Denoise:
    """x_t -> D_s x_0 in the scale of [0, 1], s = t - 1; the level that it is told is t."""
    denoiser = Denoiser(pipeline)

    def denoise(x_t: torch.Tensor, level: float) -> torch.Tensor:
        t = int(level)
        return (denoiser.process.from_target(denoiser.prediction(x_t, t - 1, t), t - 1) + 1) / 2

    return denoise


def level_probes(pipeline: SSDPipeline, images: torch.Tensor, seed: int) -> list[Probe]:
    """x_t of the images at a few timesteps of every level, with noise that belongs to (seed, t)."""
    denoiser = Denoiser(pipeline)
    process = denoiser.process
    starts = [*process.resolution.level_starts, process.num_timesteps]
    found = []
    for start, stop in pairwise(starts):
        for part in range(PER_LEVEL):
            t = start + (stop - start) * (2 * part + 1) // (2 * PER_LEVEL)
            x_0 = 2 * images - 1
            x_t = denoiser.noisy(x_0, t, torch_generator(seed, "probe", t))
            clean = (process.degrade(x_0, t - 1) + 1) / 2
            found.append(Probe(x_t, clean, t, float(process.sigma(t) / process.signal(t)) / 2))
    return found
