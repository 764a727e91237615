"""Pictures for people: grids and the coarse-to-fine animation.

Shape letters: B images, C channels (3 for RGB, 1 for grey), H W their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from ..commands.picture_grids import as_picture, from_uint8, image_grid, to_uint8

__all__ = ["CHANNELS", "CoarseToFineRecorder", "as_picture", "from_uint8", "image_grid", "save_gif", "to_uint8"]

CHANNELS = (3, 1)
"""Of a picture: RGB, or grey."""


def save_gif(frames: Sequence[Image.Image], path: Path, milliseconds: int) -> None:
    """Write frames as a GIF that pauses at the end."""
    durations = [milliseconds] * (len(frames) - 1) + [2500]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)


class CoarseToFineRecorder:
    """A pipeline callback that draws x_t beside the prediction of x_0, at their true relative sizes.

    Parameters
    ----------
    full_size : (height, width)
        The size of the final images.
    num_images : int
        How many of the batch are drawn (a square number looks best).
    every : int
        Draw one frame every this many steps; level changes and the last step always have one.
    """

    def __init__(self, full_size: tuple[int, int], num_images: int = 9, every: int = 1) -> None:
        self.full_size = full_size
        self.num_images = num_images
        self.every = every
        self.frames: list[Image.Image] = []
        self._last_size: tuple[int, int] | None = None

    def __call__(self, pipeline: Any, index: int, timestep: int, tensors: dict[str, torch.Tensor]) -> dict:
        size = (tensors["latents"].shape[-2], tensors["latents"].shape[-1])
        last = index == pipeline.num_timesteps - 1
        if index % self.every == 0 or last or size != self._last_size:
            self.frames.append(self._draw(pipeline.scheduler.previous_timestep(timestep), tensors))
        self._last_size = size
        return {}

    def save(self, path: Path, milliseconds: int = 80) -> None:
        """Write the frames as a GIF that pauses at the end."""
        save_gif(self.frames, path, milliseconds)

    def _draw(self, timestep: int, tensors: dict[str, torch.Tensor]) -> Image.Image:
        panels = [self._panel(tensors[name]) for name in ("latents", "pred_original_sample")]
        width, height = panels[0].size
        header = 22
        frame = Image.new("RGB", (2 * width + 12, height + header), "white")
        draw = ImageDraw.Draw(frame)
        h, w = tensors["latents"].shape[-2:]
        state = "clean image" if timestep < 0 else f"x_t, t = {timestep}"
        draw.text((4, 5), f"{state}, {h} x {w}", fill="black")
        draw.text((width + 16, 5), "prediction of x_0", fill="black")
        for column, panel in enumerate(panels):
            frame.paste(panel, (column * (width + 12), header))
        return frame

    def _panel(self, images: torch.Tensor) -> Image.Image:
        """The images, each centred in a cell of the full size."""
        images = images[: self.num_images].float().cpu().clamp(-1, 1)
        height, width = (self.full_size[i] - images.shape[2 + i] for i in (0, 1))
        margins = (width // 2, width - width // 2, height // 2, height - height // 2)
        return image_grid(F.pad(images, margins, value=1.0))
