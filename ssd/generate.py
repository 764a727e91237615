"""Many images from a pipeline, each with its own seed: the same image whatever the batch it is made in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from tqdm.auto import tqdm

from .errors import UsageError
from .pipeline_ssd import SSDPipeline
from .seeding import numpy_generator, torch_generator


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How images are drawn.

    Parameters
    ----------
    steps : int
        Sampling steps, from the number of levels to 1000.
    eta : float
        1 is ancestral sampling, 0 DDIM's deterministic step; in [0, 1].
    seed : int
        Image i depends on (seed, i) alone.
    batch_size : int
        Images per network call; changes speed and memory, not the images.
    """

    steps: int = 100
    eta: float = 1.0
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("batch_size", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")
        if not 0 <= self.eta <= 1:
            raise UsageError(f"--eta must be in [0, 1], got {self.eta}.")

    def check(self, pipeline: SSDPipeline) -> None:
        """Raise a `UsageError` if `pipeline` cannot take this number of steps."""
        try:
            pipeline.scheduler.set_timesteps(self.steps)
        except ValueError as error:
            raise UsageError(f"--steps {self.steps} does not fit this model: {error}") from error


def load_pipeline(model: str, device: str | None = None) -> SSDPipeline:
    """Load a saved pipeline to `device` (default: the accelerator if there is one, else the CPU).

    Raises
    ------
    UsageError
        When `model` holds no SSDPipeline, or it is incomplete.
    """
    folder = Path(model)
    if not (folder / "model_index.json").is_file():
        raise UsageError(
            f"--model {model} is no pipeline: give a folder with model_index.json, such as a finished run's --out."
        )
    logging.disable_progress_bar()  # of the loading, which takes a moment
    try:
        pipeline = SSDPipeline.from_pretrained(folder)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"--model {model} cannot be loaded as an SSDPipeline: {error}") from error
    finally:
        logging.enable_progress_bar()
    if device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = accelerator.type if accelerator is not None else "cpu"
    try:
        return pipeline.to(device)
    except RuntimeError as error:
        raise UsageError(f"--device {device} cannot be used: {str(error).splitlines()[0]}") from error


def number_of_labels(pipeline: DiffusionPipeline) -> int:
    """How many classes images can be drawn of; 0 for an unconditional model.

    The model's last class embedding stands for "no class" and is none of them, as `SSDPipeline` has it.
    """
    embeddings = pipeline.unet.config.num_class_embeds
    return max(1, embeddings - 1) if embeddings else 0


def image_labels(indices: Sequence[int], num_labels: int, kind: str = "balanced", seed: int = 0) -> list[int] | None:
    """The class of every image, a function of its number alone; None for an unconditional model.

    Parameters
    ----------
    indices : sequence of int
    num_labels : int
        0 for an unconditional model.
    kind : {"balanced", "random"}
        `index % num_labels`, or drawn from (seed, index).
    seed : int
    """
    if not num_labels:
        return None
    if kind == "balanced":
        return [index % num_labels for index in indices]
    return [int(numpy_generator(seed, "label", index).integers(num_labels)) for index in indices]


def draw(
    pipeline: DiffusionPipeline,
    indices: Sequence[int],
    settings: SamplingSettings,
    labels: Sequence[int] | None = None,
    guidance_scale: float = 1.0,
    callback: Any = None,
) -> torch.Tensor:
    """Images of the given numbers, in one batch: (B, C, H, W), float32, about [-1, 1], on the pipeline's device."""
    # A batch of one takes another convolution kernel on the CPU, which rounds otherwise: draw its image twice.
    drawn = list(indices) if len(indices) > 1 else list(indices) * 2
    images = pipeline(
        batch_size=len(drawn),
        num_inference_steps=settings.steps,
        eta=settings.eta,
        generator=[torch_generator(settings.seed, "image", i) for i in drawn],
        class_labels=labels if labels is None or len(indices) > 1 else list(labels) * 2,
        guidance_scale=guidance_scale,
        output_type="latent",
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=("latents", "pred_original_sample"),
    ).images
    return images[: len(indices)]


def generate(
    pipeline: DiffusionPipeline,
    indices: Sequence[int],
    settings: SamplingSettings,
    callback: Any = None,
) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
    """Yield (indices, images) batch by batch, with progress bars; balanced labels for class-conditional models.

    Parameters
    ----------
    pipeline : SSDPipeline
    indices : sequence of int
        Global image numbers, >= 0.
    settings : SamplingSettings
    callback : optional
        A pipeline callback, called for the first batch only (pictures of the process).

    Yields
    ------
    indices : sequence of int
    images : torch.Tensor
        (B, C, H, W), float32, about [-1, 1], on the pipeline's device.
    """
    chunks = [indices[i : i + settings.batch_size] for i in range(0, len(indices), settings.batch_size)]
    pipeline.set_progress_bar_config(desc="steps", leave=False, position=1)
    with tqdm(total=len(indices), desc="sampling", unit=" images") as progress:
        for number, chunk in enumerate(chunks):
            labels = image_labels(chunk, number_of_labels(pipeline))
            images = draw(pipeline, chunk, settings, labels, callback=callback if number == 0 else None)
            yield chunk, images
            progress.update(len(chunk))
