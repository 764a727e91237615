"""A folder in which half of the pictures are small, for tests of --small_images."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDES = (16, 20, 16, 24, 8, 12, 15, 4, 2, 3)
"""Of three levels of 16, 8 and 4 pixels four pictures fill the first, three the second, one the third, two none."""

NOTE = "of 10 pictures 4 fill 16 x 16, 3 fill 8 x 8, 1 fill 4 x 4; 2 fill none of these and are left out."


def write_pictures(folder: Path, sides: tuple[int, ...] = SIDES) -> Path:
    """Smooth pictures of these sides, each of its own colours; some are longer than they are wide."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, side in enumerate(sides):
        rows = np.linspace(0, 1, side + number % 3)[:, None, None]
        pixels = rows * rng.uniform(0, 255, 3) + (1 - rows) * rng.uniform(0, 255, (1, side, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return folder
