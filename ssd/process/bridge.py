"""Multi-resolution bridges (arXiv:2301.08187), and whether a scale-space process is one.

Images are functions on the unit square, those of a size the space V of that size (`ssd.operators.haar`), with the norm
|f|^2 = mean of squared pixels. A multi-resolution bridge (definition 2) has times between which its states lie in one
of these spaces, nested in the next, and move continuously; when the space changes, they may jump. It starts from the
coarsest space. Our timesteps run the other way: t = T-1 is the start, and the levels change on the way to t = -1.

States of images x_0 of norm at most 1 (pixels in [-1, 1]), s = t - 1 in one level:

    W2(x_s, x_t)^2 <= |a_s D_s x_0 - a_t D_t x_0|^2 + (sigma_s - sigma_t)^2

since mean and noise may be moved together. Where the level changes the noise alone moves by

    W2^2 = 3/4 sigma_s^2 + (sigma_t / g - sigma_s / 2)^2

for halving with a level gain of g: the details of x_s have no counterpart in x_t, and a coarse pixel has noise of
sigma_s / 2 before and of sigma_t / g after. Shape letters: H W the size of x_s, h w the size of x_t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch

from ..operators import haar
from ..operators.lanczos import KrylovForm
from ..operators.linear import LinearOperator
from ..operators.placing import like
from ..operators.sizes import Size
from ..operators.spectral import SpectralForm
from .scale_space import ScaleSpaceProcess

TOLERANCE = 1e-10
"""What is nested, or inside, up to round-off."""

LARGEST_STEP = 0.1
"""Steps within a level up to this are taken for those of a continuous path of length at most pi / 2. A convention."""


class NaturalExtension(LinearOperator):
    """An operator on a coarse space, glued to the identity on what is orthogonal to it (theorem 1): see below."""

    def __init__(self, operator: LinearOperator, full_size: Size) -> None:
        size = operator.in_size
        if operator.out_size != size:
            raise ValueError(f"Only operators that keep the size have an extension, got {operator!r}.")
        self._levels = max(full_size[0] // size[0], 1).bit_length() - 1
        if tuple(full_size) != (size[0] << self._levels, size[1] << self._levels):
            raise ValueError(f"{full_size} is not {size} doubled a whole number of times.")
        self.operator = operator
        self.in_size = self.out_size = (full_size[0], full_size[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.in_size)
        pooled = haar.pool(x, self._levels)
        return x + haar.embed(self.operator.forward(pooled) - pooled, self._levels)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.out_size)
        pooled = haar.pool(y, self._levels)  # pool = embed^T / 4^levels, so that embed B pool has embed B^T pool
        return y + haar.embed(self.operator.adjoint(pooled) - pooled, self._levels)

    @cached_property
    def spectral(self) -> KrylovForm:
        return KrylovForm(self, num_iterations=40)


def natural_extension(operator: LinearOperator, full_size: Size) -> NaturalExtension:
    """B on the functions of a coarse size, and the identity on the details: B (+) I on the finest space.

    In the Haar basis it is block diagonal: B's matrix for the coarse coefficients, 1 for each detail.

    Parameters
    ----------
    operator : LinearOperator
        B, from a size to itself.
    full_size : (height, width)
        That size, doubled a whole number of times.

    Raises
    ------
    ValueError
        For an operator that changes the size, or sizes that do not fit.

    Examples
    --------
    >>> from ssd.operators import Blur
    >>> extension = natural_extension(Blur((4, 4), 1.0), (8, 8))
    >>> image = torch.arange(64.0).view(8, 8)
    >>> detail = image - haar.project(image)
    >>> torch.allclose(extension.forward(detail), detail)
    True
    """
    return NaturalExtension(operator, full_size)


@dataclass(frozen=True)
class BridgeReport:
    """What `check` found; deviations are 0 for a bridge, up to round-off.

    Attributes
    ----------
    nested : float
        The sine of the largest angle between the functions of a level and those of the next finer one.
    outside : float
        The largest share of what a state shows of its image that is not in the space of the state's size: |D (I - P)|
        over |D|, for Frobenius' norm.
    largest_step : float
        The largest bound on W2 between neighbouring timesteps in one level. It falls to 0 as T grows.
    jumps : tuple of float
        W2 of the noise at every level change, finest first.
    start_size : (height, width)
        Of the coarsest states. Definition 2 starts from the constant 0; a process that starts from states of some
        pixels is a bridge that is cut off there.
    start_std : float
        The standard deviation of a pixel of the first state: 0 for a point mass, 1 for N(0, I).
    """

    nested: float
    outside: float
    largest_step: float
    jumps: tuple[float, ...]
    start_size: Size
    start_std: float

    @property
    def is_bridge(self) -> bool:
        """Spaces nested, states inside them, continuous within levels, and jumps at their changes alone."""
        continuous = self.largest_step <= LARGEST_STEP and all(jump > self.largest_step for jump in self.jumps)
        return self.nested <= TOLERANCE and self.outside <= TOLERANCE and continuous

    @property
    def is_from_a_point_mass(self) -> bool:
        """Whether the first state has no noise, as in a hierarchical VAE."""
        return self.start_std == 0


def check(process: ScaleSpaceProcess) -> BridgeReport:
    """Is a process a multi-resolution bridge?

    Parameters
    ----------
    process : ScaleSpaceProcess
        Of small images: its operators are written out.

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> report = check(SSDScheduler(sample_size=8, num_levels=2, downsample_kernel="area").process)
    >>> report.is_bridge, report.start_size, report.is_from_a_point_mass
    (True, (4, 4), False)
    >>> check(SSDScheduler(sample_size=8, num_levels=2).process).is_bridge  # bilinear
    False
    """
    sizes, changes = process.resolution.resolutions, process.resolution.level_changes
    inside = [t for t in range(1, process.num_timesteps) if t not in changes]
    return BridgeReport(
        nested=max((_angle(fine, coarse) for fine, coarse in pairwise(sizes)), default=0.0),
        outside=max(_share_outside(process, t - 1) for t in (*changes, process.num_timesteps)),
        largest_step=max((_step(process, t) for t in inside), default=0.0),
        jumps=tuple(_jump(process, t) for t in changes),
        start_size=sizes[-1],
        start_std=float(process.sigma(process.num_timesteps - 1)),
    )


@dataclass(frozen=True)
class HaarPosterior:
    """x_s | x_t, x_0 at a level change in the Haar basis: independent coefficients of two kinds.

    Attributes
    ----------
    coarse_mean : torch.Tensor
        Of the means over the squares of pixels, (B, C, h, w).
    detail_mean : torch.Tensor
        Of the details, as an image of means 0 over these squares, (B, C, H, W).
    coarse_std, detail_std : torch.Tensor
        Of every coarse and of every detail coefficient of the orthonormal transform of the pixels (`haar.analysis`
        times sqrt(H W)), (); float64. Details: sigma_s, as nothing of x_t tells of them.
    """

    coarse_mean: torch.Tensor
    detail_mean: torch.Tensor
    coarse_std: torch.Tensor
    detail_std: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """Of x_s, (B, C, H, W)."""
        return haar.embed(self.coarse_mean) + self.detail_mean


def haar_posterior(process: ScaleSpaceProcess, x_0_at_s: torch.Tensor, x_t: torch.Tensor, t: int) -> HaarPosterior:
    """Theorem 3 of docs/maths.md at a level change of the area kernel, s = t - 1, for halving.

        coarse: mean a_s pool(D_s x_0) + (sigma_s / sigma_t)^2 (c g / 4) (x_t - a_t D_t x_0),
                std sigma_s sqrt(1 - (sigma_s c g / (2 sigma_t))^2)
        details: mean a_s (D_s x_0 - embed(pool(D_s x_0))), std sigma_s

    with c = a_t / a_s and the level gain g, 1 as published. Everything else gives `ScaleSpaceProcess.posterior`.

    Parameters
    ----------
    process : ScaleSpaceProcess
        With downsample="area", without blur.
    x_0_at_s : torch.Tensor
        D_s x_0, (B, C, H, W).
    x_t : torch.Tensor
        (B, C, h, w), half as large.
    t : int
        A level change.

    Raises
    ------
    ValueError
        When x_t is not half as large as D_s x_0, or t is no level change.
    """
    if t not in process.resolution.level_changes or x_0_at_s.shape[-2:] != tuple(2 * side for side in x_t.shape[-2:]):
        raise ValueError(
            f"haar_posterior needs a timestep at which images are halved, got t={t} and images of "
            f"{tuple(x_0_at_s.shape[-2:])} and {tuple(x_t.shape[-2:])}."
        )
    s, gain = t - 1, process.level_gain
    sigma_s, sigma_t, c = process.sigma(s), process.sigma(t), process.signal(t) / process.signal(s)
    mu_s = like(process.signal(s), x_t) * x_0_at_s
    pooled = haar.pool(mu_s)
    residual = x_t - like(c * gain, x_t) * pooled
    return HaarPosterior(
        coarse_mean=pooled + like((sigma_s / sigma_t) ** 2 * c * gain / 4, x_t) * residual,
        detail_mean=mu_s - haar.embed(pooled),
        coarse_std=sigma_s * (1 - (sigma_s * c * gain / (2 * sigma_t)) ** 2).sqrt(),
        detail_std=sigma_s,
    )


def _steps(number: int, grid: int) -> torch.Tensor:
    """The orthonormal basis of step functions on [0, 1] with `number` equal steps, seen on a finer or another grid.

    Inner products with the basis of `grid` equal steps: (number, grid), float64.
    """
    own, other = torch.arange(number, dtype=torch.float64)[:, None], torch.arange(grid, dtype=torch.float64)
    lower = torch.maximum(own * grid, other * number)  # in units of 1 / (number grid), whole numbers
    upper = torch.minimum((own + 1) * grid, (other + 1) * number)
    return (upper - lower).clamp(min=0) / math.sqrt(number * grid)


def _angle(fine: Size, coarse: Size) -> float:
    """The sine of the largest angle between functions of size `coarse` and those of size `fine`."""
    squares = []
    for n, m in zip(fine, coarse):
        finer, coarser = _steps(n, math.lcm(n, m)), _steps(m, math.lcm(n, m))
        squares.append(float(torch.linalg.matrix_norm(coarser - coarser @ finer.T @ finer, ord=2)) ** 2)
    return math.sqrt(squares[0] + squares[1] - squares[0] * squares[1])  # 1 - cos^2 cos^2


def _share_outside(process: ScaleSpaceProcess, t: int) -> float:
    """|D_t (I - P)| / |D_t|, with P the projection on the functions of the size of x_t."""
    full, size = process.size(-1), process.size(t)
    dense = process.operator(-1, t).to_dense()
    rows, columns = (_steps(*sides) for sides in zip(size, full))
    images = dense.view(-1, *full)
    return float((images - rows.T @ (rows @ images @ columns.T) @ columns).norm() / dense.norm())


def _step(process: ScaleSpaceProcess, t: int) -> float:
    """The bound on W2 of x_(t-1) and x_t in one level, for images of norm 1."""
    s = t - 1
    seen, between = process.operator(-1, s), process.operator(s, t)
    spectral = between.spectral
    assert isinstance(spectral, SpectralForm), "within a level: the identity, or a blur"
    gain = seen.gain_bound() * math.sqrt(math.prod(seen.in_size) / math.prod(seen.out_size)) / process.image_scale(s)
    drift = gain * float((process.signal(s) - process.signal(t) * spectral.singular_values).abs().max())
    return math.hypot(drift, float(process.sigma(t) - process.sigma(s)) / process.image_scale(s))


def _jump(process: ScaleSpaceProcess, t: int) -> float:
    """W2 of the noise of x_(t-1) and x_t, as functions: what is coarse, and what has no counterpart in x_t."""
    s = t - 1
    kept = math.prod(process.size(t)) / math.prod(process.size(s))  # the share of the coefficients
    before = float(process.sigma(s)) / process.image_scale(s)
    after = float(process.sigma(t)) / process.image_scale(t)
    return math.hypot(math.sqrt(1 - kept) * before, after - math.sqrt(kept) * before)
