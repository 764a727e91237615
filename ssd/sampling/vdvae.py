"""Many images from a VDVAE, each with its own seed; and how they grow, cell by cell.

Shape letters: B images, C channels, S the image's side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from tqdm.auto import tqdm

from vdvae.noise import draw_uniforms
from vdvae.top_down import TopDownOutput

from ..commands.errors import BrokenModel
from ..pipeline_vdvae import VDVAEPipeline, from_grey_levels, grey_levels
from ..seeding import torch_generator
from .image_folder import model_sha256
from .many_images import pixels_per_call, split_evenly
from .pictures import image_grid, save_gif

Temperature = float | Sequence[float]


def vdvae_settings(model: Path, temperature: Temperature, seed: int) -> dict[str, Any]:
    """What decides over the pixels of image i, whoever draws it."""
    return {"model": model_sha256(model), "temperature": temperature, "seed": seed}


def generate_vdvae(
    pipeline: VDVAEPipeline,
    indices: Sequence[int],
    temperature: Temperature = 1.0,
    seed: int = 0,
    batch_size: int | None = None,
) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
    """Yield (indices, images) part by part, with a progress bar.

    Parameters
    ----------
    pipeline : VDVAEPipeline
    indices : sequence of int
        Global image numbers, >= 0.
    temperature : float or sequence of float
        See `VDVAEPipeline`.
    seed : int
        Image i depends on the seed and on i alone.
    batch_size : int, optional
        Images per call of the network, taken as at least 3; by default 2^16 pixels on a CPU, 2^19 on an accelerator.

    Yields
    ------
    indices : sequence of int
    images : torch.Tensor
        (B, C, S, S), float32 in [-1, 1], on the pipeline's device.

    Raises
    ------
    BrokenModel
        When the network gave NaN or infinity: names the first image.
    """
    if not indices:
        return
    limit = max(3, batch_size or pixels_per_call(pipeline.device) // pipeline.vdvae.config.sample_size**2)
    with tqdm(total=len(indices), desc="sampling", unit=" images", delay=2) as progress:
        for part in split_evenly(indices, limit):
            out, uniforms = _draw(pipeline, part, temperature, seed)
            yield part, _pixels(pipeline, out, uniforms)[: len(part)]
            progress.update(len(part))


def _draw(
    pipeline: VDVAEPipeline, indices: Sequence[int], temperature: Temperature, seed: int
) -> tuple[TopDownOutput, torch.Tensor]:
    """The top-down pass of images, and the uniform numbers of their pixels; of one image both twice.

    A batch of one takes another convolution kernel on the CPU, which rounds differently.
    """
    drawn = list(indices) if len(indices) > 1 else list(indices) * 2
    generators = [torch_generator(seed, "image", index) for index in drawn]
    out = pipeline.top_down(len(drawn), temperature, generators)
    finite = out.features.isfinite().flatten(1).all(dim=1).tolist()
    if not all(finite):
        raise BrokenModel(
            f"Image {drawn[finite.index(False)]} cannot be drawn: the network gave NaN or infinity, so its weights are "
            "broken."
        )
    side = pipeline.vdvae.config.sample_size
    return out, draw_uniforms((len(drawn), pipeline.vdvae.head.num_uniforms, side, side), generators, out.features)


@torch.no_grad()
def _pixels(pipeline: VDVAEPipeline, out: TopDownOutput, uniforms: torch.Tensor) -> torch.Tensor:
    """Pixels in [-1, 1], (B, C, S, S)."""
    return from_grey_levels(pipeline.vdvae.sample_images(out, uniforms=uniforms), grey_levels(pipeline.vdvae))


@torch.no_grad()
def growing_frames(
    pipeline: VDVAEPipeline, indices: Sequence[int], temperature: Temperature = 1.0, seed: int = 0, most: int = 40
) -> list[Image.Image]:
    """Pictures of images that grow from coarse to fine, at most `most` of them.

    In frame n the first n cells have the latents of the final image, and all later cells the mean of their prior: what
    the model knows of the image by then. The uniform numbers of the pixels are the same in all frames, so that the
    last one is the image.
    """
    model, num_cells = pipeline.vdvae, len(pipeline.vdvae.cells)
    out, uniforms = _draw(pipeline, indices, temperature, seed)
    every = -(-num_cells // most)
    frames = []
    for known in [*range(0, num_cells, every), num_cells]:
        latents = [latent if cell < known else None for cell, latent in enumerate(out.latents)]
        partial = model.decode(latents, batch_size=len(uniforms), temperature=0.0)
        side = model.cells[max(0, known - 1)].resolution
        caption = f"{known} of {num_cells} cells, {side} x {side}"
        frames.append(_frame(_pixels(pipeline, partial, uniforms)[: len(indices)], caption))
    return frames


def save_growing(frames: Sequence[Image.Image], path: Path) -> None:
    """Write the frames as a GIF."""
    save_gif(frames, path, milliseconds=200)


def _frame(images: torch.Tensor, caption: str) -> Image.Image:
    """A grid of images below a line of text."""
    grid, header = image_grid(images), 22
    frame = Image.new("RGB", (max(grid.width, 180), grid.height + header), "white")
    ImageDraw.Draw(frame).text((4, 5), caption, fill="black")
    frame.paste(grid, (0, header))
    return frame
