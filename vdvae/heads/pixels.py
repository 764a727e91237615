"""Grey levels of pixels, and the intervals of [-1, 1] that stand for them.

L levels have the centres c_k = 2 k / (L - 1) - 1 and the half width 1 / (L - 1); the first and the last reach to
infinity, so that the probabilities of the L intervals sum to 1 for any distribution on the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

Compatibility = Literal["exact", "published"]
COMPATIBILITIES = get_args(Compatibility)

MIN_LOG_SCALE = -7.0
"""The smallest log scale of a component, as published."""


@dataclass(frozen=True)
class Pixels:
    """The grey levels of the images and of the likelihood.

    Attributes
    ----------
    levels : int
        L, at least 2: the likelihood is over 0..L-1.
    input_levels : int
        Images have the values 0..input_levels-1, of which input_levels / L in a row are one level.

    Examples
    --------
    >>> five_bits = Pixels(levels=32, input_levels=256)
    >>> five_bits.level(torch.tensor([0, 7, 8, 255]))
    tensor([ 0,  0,  1, 31])
    >>> five_bits.value(torch.tensor([0, 1, 31]))
    tensor([  0,   8, 255])
    """

    levels: int
    input_levels: int

    def __post_init__(self) -> None:
        if self.levels < 2 or self.input_levels % self.levels:
            raise ValueError(
                f"levels must be at least 2 and divide input_levels, got {self.levels} and {self.input_levels}."
            )

    @property
    def half_width(self) -> float:
        """Half the width of an interval, in units of [-1, 1]."""
        return 1 / (self.levels - 1)

    def level(self, images: torch.Tensor) -> torch.Tensor:
        """Values of images -> levels, int64."""
        return images.long() // (self.input_levels // self.levels)

    def value(self, levels: torch.Tensor) -> torch.Tensor:
        """Levels -> values of images, spread over their whole range; `level` gives the same levels again."""
        return torch.round(levels.double() * (self.input_levels - 1) / (self.levels - 1)).long()

    def centre(self, levels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The centre of the interval of each level, in [-1, 1]."""
        return (2 * levels - (self.levels - 1)).to(dtype) / (self.levels - 1)

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        """The level in whose interval each number of the line lies, int64."""
        return torch.round((x.clamp(-1, 1) + 1) * ((self.levels - 1) / 2)).long()


def inside_unit(uniforms: torch.Tensor) -> torch.Tensor:
    """Uniform numbers kept away from 0 and 1, where logarithms end."""
    eps = torch.finfo(uniforms.dtype).eps
    return uniforms.clamp(eps, 1 - eps)
