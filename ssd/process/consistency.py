"""Predictions that agree with a small picture: the row space of D is the picture's, the null space the network's.

Let y be a picture of level j and x_hat a prediction of the clean image of level k <= j, both as the network sees
images, and D = U diag(lambda) V^T the downsampling from level k to level j. Of all images with D x = y the one nearest
to the prediction is

    x_hat + D^+ (y - D x_hat),    D^+ = V diag(1 / lambda) U^T

so that D of it is y, and what D does not see, (I - D^+ D) x_hat, stays as it was predicted. To project every prediction
of a chain is the null-space method of DDNM (arXiv:2212.00490); ILVR (arXiv:2108.02938) does the like with a low-pass
filter on the states. Here D is the process's own, whose decomposition is at hand, per axis.

Three things follow from the order in which it is done. Predictions are clipped before and not after: the result is
exact, and may leave [-1, 1] where y has more contrast than D leaves of any picture. The projected prediction is what
second-order sampling remembers, so that it extrapolates between pictures that agree with y. And the last step returns
its prediction, so that the final image agrees with y whatever the noise did.

Shape letters: B batch, C channels; H W the size of level k, h w the size of level j.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..operators.linear import LinearOperator
from .scale_space import ScaleSpaceProcess

SMALLEST_SINGULAR_VALUE = 1e-3
"""Relative to the largest. Directions with less, which only a wide blur has, are left to the network: 1 / lambda would
magnify the rounding of the picture, of 8 bits, beyond its range."""


def project(operator: LinearOperator, x_hat: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x_hat + D^+ (y - D x_hat), the image nearest to x_hat of all with D x = y.

    Parameters
    ----------
    operator : LinearOperator
        D.
    x_hat : torch.Tensor
        (B, C, H, W).
    y : torch.Tensor
        (B, C, h, w).

    Examples
    --------
    >>> from ssd.operators import resize_operator
    >>> down = resize_operator((8, 8), (4, 4))
    >>> x_hat, y = torch.zeros(1, 1, 8, 8), torch.eye(4).view(1, 1, 4, 4)
    >>> bool((down.forward(project(down, x_hat, y)) - y).abs().max() < 1e-5)
    True
    """
    spectral = operator.spectral
    smallest = SMALLEST_SINGULAR_VALUE * spectral.largest_singular_value()

    def inverse(lam: torch.Tensor) -> torch.Tensor:
        return torch.where(lam > smallest, 1 / lam, 0.0)

    return x_hat + spectral.gain(inverse, y - operator.forward(x_hat))


@dataclass(frozen=True)
class SmallPicture:
    """A picture at one level of a process: as a state, and as a condition on predictions of finer levels.

    Attributes
    ----------
    process : ScaleSpaceProcess
    picture : torch.Tensor
        y, (B, C, h, w), of the usual range: the clean image as it enters the level, whatever the `level_gain`.
    level : int
        j, 0 the finest.

    Raises
    ------
    ValueError
        When the picture does not have the size of the level.
    """

    process: ScaleSpaceProcess
    picture: torch.Tensor
    level: int

    def __post_init__(self) -> None:
        size = self.process.resolution.resolutions[self.level]
        if tuple(self.picture.shape[-2:]) != size:
            raise ValueError(f"A picture of level {self.level} has the size {size}, got {tuple(self.picture.shape)}.")

    @classmethod
    def of(cls, process: ScaleSpaceProcess, x_0: torch.Tensor, level: int) -> SmallPicture:
        """The picture that an image of full resolution, (B, C, H, W), is at a level."""
        start = process.resolution.level_starts[level]
        return cls(process, process.degrade(x_0, start) / process.image_scale(start), level)

    def state(self, t: int, noise: torch.Tensor) -> torch.Tensor:
        """x_t = a_t D_t x_0 + sigma_t noise for a timestep of this level: exact, since D_t x_0 follows from y."""
        return self.process.signal(t) * self.process.from_target(self.picture, t) + self.process.coloured(noise, t)

    def prediction(self, x_hat: torch.Tensor, s: int) -> torch.Tensor:
        """The projection of a prediction of the clean image of the level of s, (B, C, H, W), at most this level."""
        starts, fine = self.process.resolution.level_starts, self.process.level(s)
        operator = self.process.operator(starts[fine], starts[self.level])
        scale = self.process.image_scale(starts[self.level]) / self.process.image_scale(starts[fine])
        return project(operator, x_hat, scale * self.picture.to(x_hat.dtype))
