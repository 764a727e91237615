"""Pictures for people: grids and the coarse-to-fine animation.

Shape letters: B images, C channels (3 for RGB, 1 for grey), H W their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torchvision.utils import make_grid

MIN_SIDE = 64
CHANNELS = (3, 1)
"""Of a picture: RGB, or grey."""


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """(B, C, H, W) in [-1, 1] -> (B, H, W, C) uint8, by rounding, as diffusers does."""
    scaled = ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round()
    return scaled.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()


def from_uint8(pictures: np.ndarray) -> torch.Tensor:
    """(B, H, W, C) uint8 -> (B, C, H, W), float32 in [-1, 1]; `to_uint8` gives the same pictures back."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_picture(pixels: np.ndarray) -> Image.Image:
    """Pixels (H, W, C), uint8, as a picture: RGB, or of one channel grey (mode L).

    Examples
    --------
    >>> as_picture(np.zeros((16, 8, 1), dtype=np.uint8)).mode
    'L'
    """
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def image_grid(images: torch.Tensor, columns: int | None = None) -> Image.Image:
    """A picture of (B, C, H, W) images in [-1, 1], as many rows as columns, small ones enlarged by whole factors."""
    factor = max(1, MIN_SIDE // max(images.shape[-2:]))
    enlarged = F.interpolate(images.float().cpu(), scale_factor=factor, mode="nearest")
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    grid = make_grid(enlarged, nrow=columns, padding=2, pad_value=1.0)[: images.shape[1]]  # of grey it makes RGB
    return as_picture(to_uint8(grid[None])[0])


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
