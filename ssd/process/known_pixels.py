"""Images of which some pixels are known, at every size of the process: what inpainting holds fast.

Let m be a mask of full resolution, 1 where a pixel of x is known, and D the downsampling from there to a level, as the
network sees images, so that it keeps constants. A coarse pixel is a weighted mean of fine ones. What is known of it is

    D (m x),        a share of D m of the pixel;        what is not known has the weight 1 - D m

The unknown share is the network's, whose prediction x_hat of that pixel is the best guess of its mean:

    x_hat  <-  D (m x) + (1 - D m) x_hat                                             every prediction
    x_s    <-  a_s D_s x + sigma_s noise  where all pixels under it are known         every state

The second line is exact: such a pixel has the distribution that it has given x (arXiv:2201.09865, equation 8a, at every
size), and nothing of what is behind the mask enters it, not even through the edge of a kernel. Where a coarse pixel is
covered in part its noisy state is not known, and it stays as it was drawn, from the first line's prediction. That line
is exact where the fine pixels behind the mask have one colour; and at full resolution, where D = I and m is 0 or 1, so
that the last prediction, which is the result, has the known pixels themselves.

Shape letters: B batch, C channels; H W full resolution, h w the size of a level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..operators.linear import SeparableOperator
from .posterior import Generators, white_noise
from .scale_space import ScaleSpaceProcess

ROUNDING = 1e-5
"""How far a covered pixel may be from full coverage, whose weights are summed in float32."""


@dataclass(frozen=True)
class KnownPixels:
    """Images with the pixels of a mask.

    Attributes
    ----------
    process : ScaleSpaceProcess
    images : torch.Tensor
        x, (B, C, H, W); what it holds where nothing is known has no effect.
    known : torch.Tensor
        m, (B, 1, H, W), 1 where a pixel is known, else 0.

    Raises
    ------
    ValueError
        For other shapes, and for a mask of other values.
    """

    process: ScaleSpaceProcess
    images: torch.Tensor
    known: torch.Tensor

    def __post_init__(self) -> None:
        full = self.process.resolution.resolutions[0]
        expected = (len(self.images), 1, *full)
        if tuple(self.images.shape[-2:]) != full or tuple(self.known.shape) != expected:
            raise ValueError(
                f"Images of {full} and a mask {expected} are needed, got {tuple(self.images.shape)} and "
                f"{tuple(self.known.shape)}."
            )
        if not bool(((self.known == 0) | (self.known == 1)).all()):
            raise ValueError("A mask of known pixels holds 0 and 1 alone.")

    @property
    def _masked(self) -> torch.Tensor:
        """m x, without what is behind the mask, whatever it is."""
        return torch.where(self.known == 1, self.images, 0.0)

    def share(self, s: int) -> torch.Tensor:
        """D m, what is known of every pixel of x_s, (B, 1, h, w); kernels with negative weights leave [0, 1]."""
        return self.process.degrade(self.known.float(), s) / self.process.image_scale(s)

    def covered(self, s: int) -> torch.Tensor:
        """Which pixels of x_s depend on known pixels alone, by their weights' absolute values: (B, 1, h, w), bool."""
        operator, known = self.process.operator(-1, s), self.known.float()
        if operator.matrices is None:  # the identity
            return known == 1
        rows, columns = operator.matrices.matrix_h.abs(), operator.matrices.matrix_w.abs()
        weights = SeparableOperator(rows / rows.sum(dim=1, keepdim=True), columns / columns.sum(dim=1, keepdim=True))
        return weights.forward(known) > 1 - ROUNDING

    def prediction(self, x_hat: torch.Tensor, s: int) -> torch.Tensor:
        """The first line above, for a prediction of the clean image of the level of s, (B, C, h, w)."""
        start = self.process.resolution.level_starts[self.process.level(s)]
        if start == -1:
            return torch.where(self.known == 1, self.images.to(x_hat.dtype), x_hat)
        known = self.process.degrade(self._masked, start) / self.process.image_scale(start)
        return (known + (1 - self.share(start)) * x_hat).to(x_hat.dtype)

    def state(self, x_s: torch.Tensor, s: int, generator: Generators = None) -> torch.Tensor:
        """The second line, with new noise: (B, C, h, w)."""
        noisy = self.first_state(s, white_noise(x_s, generator))
        return torch.where(self.covered(s), noisy, x_s)

    def first_state(self, t: int, noise: torch.Tensor) -> torch.Tensor:
        """x_t where nothing but the known pixels is known: exact where they cover it, else about 0."""
        return self.process.marginal_sample(self._masked.to(noise.dtype), t, noise)
