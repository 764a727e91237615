"""Many images from a pipeline, each with its own seed: the same image whatever the batch it is made in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, TypeVar

import torch
from tqdm.auto import tqdm

from ..commands.errors import BrokenModel, UsageError
from ..pipeline_ssd import SSDPipeline
from ..pipelines.denoising_pipeline import DenoisingPipeline
from ..pipelines.guidance import number_of_classes
from ..pipelines.samplers import default_steps, sampler_name, with_sampler
from ..seeding import numpy_generator, torch_generator
from .compiling import compile_pipeline
from .pictures import CHANNELS

CPU_PIXELS = 2**16
"""Pixels per network call on a CPU: 16 images of 64 pixels; more are slower (docs/performance.md)."""

ACCELERATOR_PIXELS = 2**19
"""Pixels per network call on an accelerator: 8 images of 256 pixels, 128 of 64."""


Settings = TypeVar("Settings", bound="SamplingSettings")

Arguments = Callable[[Sequence[int]], Mapping[str, Any]]
"""Further arguments of a pipeline for the images of these numbers."""


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How images are drawn.

    Parameters
    ----------
    sampler : {"second_order", "paper"}, optional
        How images are sampled: with second order, or with the paper's first order in even timesteps. Default: as the
        model's scheduler says, which is second order unless it was changed.
    steps : int, optional
        The number of sampling steps, from the number of levels to 1000. Default: 20 with second order, at least 3 per
        level; 100 with the paper's sampler.
    eta : float
        1 is ancestral sampling, 0 is DDIM's deterministic step; any number in [0, 1].
    seed : int
        The seed of everything random: image i depends on the seed and on i alone.
    dtype : {"float32", "bfloat16", "float16"}
        The type of the network's weights; the noisy image itself stays in float32.
    residual_covariance : {"none", "null_space", "change", "all"}, optional
        Where predictions get noise of the spread that a mean lacks, by a calibration (`ssd.evaluation.calibrate`):
        nowhere; in the new details at level changes; in all directions there; everywhere. The last two are for the
        paper's sampler. Default: as the model's scheduler says, nowhere unless it was changed.
    compile : bool
        Compile the network before the first image: one graph per route, on NVIDIA GPUs replayed as CUDA graphs.
    switches : list of int, optional
        The first timestep of every coarser level: earlier is faster. For models trained with --switch_jitter.
    """

    sampler: Literal["second_order", "paper"] | None = None
    steps: int | None = None
    eta: float = 1.0
    seed: int = 0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    residual_covariance: Literal["none", "null_space", "change", "all"] | None = None
    compile: bool = False
    switches: list[int] | None = None

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("seed", 0)):
            if getattr(self, name) is not None and getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")
        if not 0 <= self.eta <= 1:
            raise UsageError(f"--eta must be in [0, 1], got {self.eta}.")

    def generator(self, number: int) -> torch.Generator:
        """All random numbers of the image with this number."""
        return torch_generator(self.seed, "image", number)

    def prepare(self: Settings, pipeline: DenoisingPipeline) -> Settings:
        """Give `pipeline` the sampler; returns the settings with their defaults filled in.

        Raises
        ------
        UsageError
            When the pipeline cannot take these settings, or gives no pictures.
        """
        channels = pipeline.unet.config.out_channels
        if channels not in CHANNELS:
            raise UsageError(
                f"The model gives images of {channels} channels, but pictures have 3 (RGB) or 1 (grey): call its "
                'pipeline in Python, with output_type="latent".'
            )
        with _fitting("The sampler"):
            pipeline.scheduler = with_sampler(
                pipeline.scheduler, self.sampler, residual_covariance=self.residual_covariance
            )
        with _fitting(f"--switches {self.switches}"):
            pipeline.scheduler.use_switches(self.switches)
        steps = default_steps(pipeline.scheduler) if self.steps is None else self.steps
        with _fitting(f"--steps {steps}"):
            pipeline.scheduler.set_timesteps(steps, switches=self.switches)
        with _fitting(f"--eta {self.eta:g}"):
            pipeline.scheduler.process.check_eta(self.eta)
        return replace(
            self,
            steps=steps,
            sampler=sampler_name(pipeline.scheduler),
            residual_covariance=pipeline.scheduler.config.get("residual_covariance", "none"),
        )


@contextmanager
def _fitting(what: str) -> Iterator[None]:
    """Turn a ValueError into a `UsageError` about a setting."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{what} does not fit this model: {error}") from error


def image_labels(indices: Sequence[int], num_labels: int, kind: str = "balanced", seed: int = 0) -> list[int] | None:
    """The class of every image, a function of its number (and the seed) alone; None for an unconditional model.

    Parameters
    ----------
    indices : sequence of int
    num_labels : int
        The number of classes, 0 for an unconditional model, as from `number_of_classes`: "no class" is never drawn.
    kind : {"balanced", "random"}
        `index % num_labels`, or drawn from (seed, index).
    seed : int
        The seed of random labels.
    """
    if not num_labels:
        return None
    if kind == "balanced":
        return [index % num_labels for index in indices]
    return [int(numpy_generator(seed, "label", index).integers(num_labels)) for index in indices]


def draw(
    pipeline: DenoisingPipeline,
    indices: Sequence[int],
    settings: SamplingSettings,
    labels: Sequence[int] | None = None,
    guidance_scale: float = 1.0,
    callback: Any = None,
    max_batch_size: int | None = None,
    arguments: Arguments | None = None,
) -> torch.Tensor:
    """Images of the given numbers: (B, C, H, W), float32, about [-1, 1], on the pipeline's device.

    `max_batch_size` is the most that the network takes at once at full resolution; coarser levels have as many pixels.
    `arguments` are for pipelines that are given more than labels.

    Raises
    ------
    BrokenModel
        When the network gave NaN or infinity: names the first image and the timestep.
    """
    # A batch of one takes another convolution kernel on the CPU, which rounds differently: draw its image twice.
    drawn = list(indices) if len(indices) > 1 else list(indices) * 2
    classes = {
        "class_labels": labels if labels is None or len(indices) > 1 else list(labels) * 2,
        "guidance_scale": guidance_scale,
    }
    (images,) = pipeline(
        batch_size=len(drawn),
        num_inference_steps=settings.steps,
        eta=settings.eta,
        generator=[settings.generator(i) for i in drawn],
        **(classes if arguments is None else arguments(drawn)),
        output_type="latent",
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=("latents", "pred_original_sample"),
        max_batch_size_per_level=max_batch_size,
        switches=settings.switches,
        return_dict=False,
    )
    _check_finite(pipeline, drawn, settings.dtype)
    return images[: len(indices)]


def _check_finite(pipeline: DenoisingPipeline, indices: Sequence[int], dtype: str) -> None:
    """Raise a `BrokenModel` if the network gave NaN or infinity for one of the images just drawn."""
    fault = pipeline.first_fault()
    if fault is not None:
        way_out = "its weights are broken" if dtype == "float32" else f"{dtype} is too coarse for it: try float32"
        raise BrokenModel(
            f"Image {indices[fault[0]]} cannot be drawn: the network gave NaN or infinity at timestep {fault[1]}, so "
            f"{way_out}."
        )


def generate(
    pipeline: DenoisingPipeline,
    indices: Sequence[int],
    settings: SamplingSettings,
    batch_size: int | None = None,
    callback: Any = None,
    arguments: Arguments | None = None,
) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
    """Yield (indices, images) part by part, with progress bars.

    On an accelerator several batches are drawn together: coarse levels take as many pixels at once as the finest.

    Parameters
    ----------
    pipeline : DenoisingPipeline
    indices : sequence of int
        Global image numbers, >= 0.
    settings : SamplingSettings
    batch_size : int, optional
        Images per network call at full resolution; default: what suits the device. Changes speed and memory, not the
        images. Fewer than 3 are taken as 3: a single image left over would be rounded differently.
    callback : optional
        A callback of the pipeline, called for the first part only (for pictures of the process).
    arguments : callable, optional
        Further arguments of the pipeline. Default: balanced labels for class-conditional models.

    Yields
    ------
    indices : sequence of int
    images : torch.Tensor
        (B, C, H, W), float32, about [-1, 1], on the pipeline's device.
    """
    if not indices:
        return
    limit = max(3, batch_size or default_batch_size(pipeline))
    parts = split_evenly(indices, limit * batches_together(pipeline))
    if settings.compile:
        compile_pipeline(SSDPipeline.from_pipe(pipeline), {len(part) for part in parts}, limit)
    pipeline.set_progress_bar_config(desc="steps", leave=False, position=1)
    with tqdm(total=len(indices), desc="sampling", unit=" images") as progress:
        for number, part in enumerate(parts):
            labels = image_labels(part, number_of_classes(pipeline.unet))
            chosen = callback if number == 0 else None
            images = draw(pipeline, part, settings, labels, callback=chosen, max_batch_size=limit, arguments=arguments)
            yield part, images
            progress.update(len(part))


def default_batch_size(pipeline: DenoisingPipeline) -> int:
    """Images per network call at full resolution: as many pixels as suit the device, few for the caches of a CPU."""
    return max(1, pixels_per_call(pipeline.device) // math.prod(pipeline.scheduler.size_at(-1)))


def pixels_per_call(device: torch.device) -> int:
    """Pixels per network call that suit a device."""
    return CPU_PIXELS if device.type == "cpu" else ACCELERATOR_PIXELS


def batches_together(pipeline: DenoisingPipeline) -> int:
    """How many batches are drawn together, so that coarse levels fill an accelerator as well as the finest does.

    A CPU is filled by one batch at every level, and larger ones leave its caches (docs/performance.md).
    """
    if pipeline.device.type == "cpu":
        return 1
    finest, coarsest = pipeline.scheduler.size_at(-1), pipeline.scheduler.resolutions[-1]
    return min(math.prod(finest) // math.prod(coarsest), 16)


def split_evenly(indices: Sequence[int], limit: int) -> list[Sequence[int]]:
    """Parts of at most `limit` numbers, as equal as possible: at most two different lengths."""
    count = -(-len(indices) // limit)
    bounds = [round(part * len(indices) / count) for part in range(count + 1)]
    return [indices[start:end] for start, end in pairwise(bounds)]
