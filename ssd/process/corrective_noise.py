"""Resolutions without scale space: diffusion at every level, and corrective noise where the image grows.

Every level l is an ordinary diffusion of the small image D_l x_0, and the network never enlarges anything. Where a
level ends, at its time u, the state is enlarged and made noisier, so that it continues at an earlier time s > u:

    x = a Up(x_u) + b z,    z ~ N(0, I - c Up Up^T),
    a^2 abar_u = abar_s,    b^2 = 1 - abar_s,    c = abar_s (1 - abar_u) / (abar_u (1 - abar_s)) = SNR_s / SNR_u

Then x ~ N(a_s Up(D x_0), sigma_s^2 I): the mean and the noise of the next level's state at time s, but for details
that Up cannot know. Up repeats every pixel, Up Up^T has the eigenvalue 4, and so z has a covariance for c <= 1/4. The
ablation "Flexi-UNet without SSD" of arXiv:2603.08709; the correction is that of arXiv:2410.05954, section 3.3.

The states form one chain with indices of its own, t = -1 (the clean image), 0, .., T'-1: level 0 at times 0..s_0, then
level 1 at times u_0 + 1..s_1, and so on. Times between u and s occur at two levels: that is what rolling back costs.

Shape letters: B batch, C channels; H W the size of x_s, h w the size of x_t.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import pairwise

import torch

from ..operators.linear import IdentityOperator, LinearOperator, SeparableOperator
from ..operators.placing import like
from ..operators.resize import resize_operator
from ..operators.sizes import Size
from ..operators.spectral import AxisMatrices, IsotropicCovariance, SpectralCovariance
from .diffusion import DiffusionProcess, Timestep
from .noise import NoiseSchedule
from .posterior import GaussianPosterior, eta_posterior
from .resolution import ResolutionSchedule

LARGEST_EIGENVALUE = 4.0
"""Of Up Up^T: every pixel becomes a block of 2 x 2."""


class CorrectiveNoiseProcess(DiffusionProcess):
    """The chain of all levels, from the coarsest to the clean image.

    Parameters
    ----------
    noise : NoiseSchedule
        Of the times 0..T-1.
    resolution : ResolutionSchedule
        The level of every time: a change at time u says where the coarser level ends. Sizes halve from level to level.
    downsample : str
        The kernel of D_l, one of `ssd.operators.kernels.KERNELS`.
    snr_drop : float
        SNR_u / SNR_s, at least 4: how much noise is added where the image grows. 4 is the least that theory allows.

    Attributes
    ----------
    times : tuple of int
        The time of every state of the chain.

    Raises
    ------
    ValueError
        For sizes that do not halve, an SNR drop below 4, and a schedule that leaves no room to roll back.

    Examples
    --------
    >>> from ssd.process.noise import make_betas
    >>> from ssd.process.resolution import pyramid
    >>> schedule = ResolutionSchedule.from_curve(pyramid(16, 2), 1000, "equal")
    >>> process = CorrectiveNoiseProcess(NoiseSchedule.from_betas(make_betas()), schedule)
    >>> process.num_timesteps, process.required_timesteps
    (1118, (618,))
    """

    def __init__(
        self, noise: NoiseSchedule, resolution: ResolutionSchedule, downsample: str = "bilinear", snr_drop: float = 4.0
    ) -> None:
        sizes = resolution.resolutions
        if any(fine != (2 * coarse[0], 2 * coarse[1]) for fine, coarse in pairwise(sizes)):
            raise ValueError(f"Corrective noise needs sizes that halve from level to level, got {list(sizes)}.")
        if not snr_drop >= LARGEST_EIGENVALUE:
            raise ValueError(f"snr_drop must be at least 4, or the noise has no covariance; got {snr_drop}.")
        ends = [bisect_left(resolution.levels, level) for level in range(1, len(sizes))]  # u of every growth
        entries = [_rolled_back(noise, end, snr_drop) for end in ends]  # s of every growth
        spans = list(zip([-1, *ends], [*entries, noise.num_timesteps - 1]))
        self.times = tuple(time for below, top in spans for time in range(below + 1, top + 1))
        levels = tuple(level for level, (below, top) in enumerate(spans) for _ in range(below, top))
        index = torch.tensor([*self.times, -1])
        super().__init__(NoiseSchedule(noise.signal[index], noise.sigma[index]), ResolutionSchedule(sizes, levels))
        self._times_noise, self._ends = noise, ends
        self._entries = tuple(start - 1 for start in self.resolution.level_changes)
        steps = [resize_operator(fine, coarse, downsample) for fine, coarse in pairwise(sizes)]
        self._degradations: list[LinearOperator] = [IdentityOperator(sizes[0])]
        for step in steps:
            self._degradations.append(step.compose(self._degradations[-1]))

    @property
    def required_timesteps(self) -> tuple[int, ...]:
        """The first state of every level but the coarsest: the only one that corrective noise leads to."""
        return self._entries

    def prediction_size(self, t: Timestep, s: Timestep) -> Size:
        """The size of x_t: the network never enlarges an image."""
        return self.size(t)

    def operator(self, s: Timestep, t: Timestep) -> LinearOperator:
        """D_t, for s = -1: D_l of the level of t, or Up D_(l+1) where x_t comes from below."""
        if not isinstance(s, int) or s != -1:
            raise ValueError(f"Corrective noise knows degradations of the clean image alone: s must be -1, got {s}.")
        level = self.level(t)
        values = {t} if isinstance(t, int) else set(t.flatten().tolist())
        came_from_below = values & set(self._entries)
        if came_from_below and len(values) > 1:
            raise ValueError(
                f"Timestep {came_from_below.pop()} has a degradation of its own: give it a batch of its own."
            )
        if not came_from_below:
            return self._degradations[level]
        coarser = self._degradations[level + 1]
        return upsample(coarser.out_size).compose(coarser)

    def target(self, x_0: torch.Tensor, t: Timestep) -> torch.Tensor:
        """D_l x_0 at the level of t."""
        return self._degradations[self.level(t)].forward(x_0)

    def reverse(
        self, clean: torch.Tensor, x_t: torch.Tensor, s: Timestep, t: Timestep, eta: float = 1.0
    ) -> GaussianPosterior:
        """Within a level as DDPM. To the next level: to the end of this one, enlarged, with corrective noise."""
        level, next_level = self.level(t), self.level(s)
        if next_level == level:
            return self._within(clean, x_t, self.signal(s), self.sigma(s), t, eta)
        if next_level != level - 1 or int(torch.as_tensor(s).flatten()[0]) != self._entries[next_level]:
            raise ValueError(
                f"Corrective noise leads to the timesteps {list(self._entries)} alone, not from {t} to {s}."
            )
        end = self._ends[next_level]
        a_u, sigma_u = self._times_noise.signal[end], self._times_noise.sigma[end]
        coarse = self._within(clean, x_t, a_u, sigma_u, t, eta)
        assert isinstance(coarse.covariance, IsotropicCovariance)
        a, b = self.signal(s) / a_u, self.sigma(s)
        # Cov = a^2 v Up Up^T + b^2 (I - c Up Up^T), where b^2 c = a^2 sigma_u^2
        inside = b**2 - LARGEST_EIGENVALUE * a**2 * (sigma_u**2 - coarse.covariance.variance)
        size = self.size(t)
        up = upsample(size)
        basis = AxisMatrices(up.matrices.matrix_h / math.sqrt(2), up.matrices.matrix_w / math.sqrt(2))
        return GaussianPosterior(
            mean=like(a, x_t) * up.forward(coarse.mean),
            covariance=SpectralCovariance(
                basis, inside.expand(*inside.shape[:-2], *size), b**2 if b.ndim else (b**2).view(1, 1), up.out_size
            ),
        )

    def _within(
        self, clean: torch.Tensor, x_t: torch.Tensor, a_s: torch.Tensor, sigma_s: torch.Tensor, t: Timestep, eta: float
    ) -> GaussianPosterior:
        """The posterior of a less noisy state of the same size."""
        identity = IdentityOperator(self.size(t))
        return eta_posterior(identity, self.signal(t) / a_s, like(a_s, x_t) * clean, x_t, sigma_s, self.sigma(t), eta)


def upsample(size: Size) -> SeparableOperator:
    """Up: every pixel becomes a block of 2 x 2 (nearest upsampling); Up Up^T / 4 is a projection."""
    rows, columns = (torch.eye(side, dtype=torch.float64).repeat_interleave(2, dim=0) for side in size)
    return SeparableOperator(rows, columns)


def _rolled_back(noise: NoiseSchedule, end: int, snr_drop: float) -> int:
    """s: the first time with an SNR of at most that of time `end` over `snr_drop`."""
    allowed = torch.nonzero(noise.snr <= noise.snr[end] / snr_drop).flatten().tolist()
    if not allowed:
        raise ValueError(
            f"There is no time to roll back to where the image grows at time {end}: the SNR there, "
            f"{float(noise.snr[end]):.3g}, would have to fall by {snr_drop:g}. Let the image grow at a less noisy time."
        )
    return int(allowed[0])
