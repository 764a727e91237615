"""Sampling with nothing but a denoiser: from strong noise to little, coarse to fine in noise.

Kadkhodaie and Simoncelli, NeurIPS 2021; parameters of arXiv:2310.02557. y - f(y) estimates the noise, since by Miyasawa
the best denoiser is f(y) = y + sigma^2 grad log p(y). From y_0 ~ N(m, s_0^2) each step takes a part h of it away and
puts fresh noise back, so that the noise left falls by the factor 1 - beta h:

    sigma = |y - f(y)| / sqrt(d),   y <- y - h (y - f(y)) + gamma z,   gamma^2 = ((1 - beta h)^2 - (1 - h)^2) sigma^2,

until sigma < s_inf; the result is denoised once more. The step is fixed, or grows as h_t = h_0 t / (1 + h_0 (t - 1)).
For a denoiser that always answers with one image x, E |y - x|^2 / d shrinks by (1 - beta h)^2 each step.

Noise is a function of (seed, i) alone, and every sample has its own sigma and its own end: an image does not depend on
the others in its batch. A sample whose sigma exceeds 2 has left the range of images: it ends there, and is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ...seeding import torch_generator

DIVERGED = 2.0
"""A sample with more noise than this has diverged: images in [0, 1] begin with 1."""

Noise = Callable[[int], torch.Tensor]
"""Iteration number, 0 for the start -> standard normal noise for all samples, (B, C, H, W)."""


@dataclass(frozen=True, kw_only=True)
class CoarseToFine:
    """The parameters of the sampler.

    Parameters
    ----------
    step : float
        h, the part of the estimated noise that a step takes away, in (0, 1]; the first one, if it grows.
    beta : float
        In (0, 1]: with 1 no noise is put back.
    growing : bool
        Let the step grow to 1.
    start, end : float
        s_0 and s_inf.
    max_steps : int
        Stop there.
    """

    step: float = 0.05
    beta: float = 0.3
    growing: bool = True
    start: float = 1.0
    end: float = 0.05
    max_steps: int = 1000

    def __post_init__(self) -> None:
        for name in ("step", "beta"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}.")
        if not 0 < self.end < self.start:
            raise ValueError(f"The noise must fall from start to end, above 0, got {self.start} and {self.end}.")

    def step_size(self, iteration: int) -> float:
        """h of iteration 1, 2, ..

        Examples
        --------
        >>> CoarseToFine(step=0.5).step_size(1), round(CoarseToFine(step=0.5).step_size(2), 3)
        (0.5, 0.667)
        """
        return self.step * iteration / (1 + self.step * (iteration - 1)) if self.growing else self.step

    def expected_steps(self) -> int:
        """The steps from s_0 to below s_inf, where sigma falls by exactly 1 - beta h.

        Examples
        --------
        >>> CoarseToFine(step=0.01, beta=0.1, growing=False).expected_steps(), CoarseToFine().expected_steps()
        (2995, 25)
        """
        sigma, steps = self.start, 0
        while sigma >= self.end:
            steps += 1
            sigma *= 1 - self.beta * self.step_size(steps)
        return steps


@dataclass(frozen=True)
class State:
    """Where the samples are: images y and f(y), (B, C, H, W), sigma and whether they move, (B,)."""

    y: torch.Tensor
    denoised: torch.Tensor
    sigma: torch.Tensor
    moves: torch.Tensor


@dataclass(frozen=True)
class Samples:
    """What came of sampling.

    Attributes
    ----------
    images : torch.Tensor
        (B, C, H, W), denoised once more at the end; also those of samples that diverged.
    sigma : torch.Tensor
        (B,), the noise at the last step of each.
    steps : torch.Tensor
        (B,), integers: the steps each took.
    diverged : torch.Tensor
        (B,), bool.
    """

    images: torch.Tensor
    sigma: torch.Tensor
    steps: torch.Tensor
    diverged: torch.Tensor


def langevin_step(y: torch.Tensor, residual: torch.Tensor, step: float, beta: float, z: torch.Tensor) -> torch.Tensor:
    """One step of the sampler: y - h r + gamma z, for images (B, C, H, W)."""
    put_back = ((1 - beta * step) ** 2 - (1 - step) ** 2) ** 0.5
    gamma = put_back * noise_level(residual)
    return y - step * residual + gamma[:, None, None, None] * z


def noise_level(residual: torch.Tensor) -> torch.Tensor:
    """The estimated noise |r| / sqrt(d) of each image: (B, C, H, W) -> (B,)."""
    return residual.flatten(1).square().mean(dim=1).sqrt()


def seeded_noise(indices: Sequence[int], shape: Sequence[int], seed: int, dtype: torch.dtype = torch.float32) -> Noise:
    """Noise of which sample i gets the part that belongs to (seed, i), whatever samples are drawn with it.

    Parameters
    ----------
    indices : sequence of int
        The samples' numbers.
    shape : (channels, height, width)
    seed : int
    dtype : torch.dtype

    Returns
    -------
    callable
        To be called with 0, 1, 2, .. in order.
    """
    generators = [torch_generator(seed, "coarse to fine", index) for index in indices]
    return lambda iteration: torch.stack([torch.randn(*shape, generator=one, dtype=dtype) for one in generators])


@torch.no_grad()
def states(
    denoise: Callable[[torch.Tensor], torch.Tensor], mean: float | torch.Tensor, noise: Noise, how: CoarseToFine
) -> Iterator[State]:
    """Yield y_0, y_1, .. until no sample moves any more; those that have ended stay where they are."""
    y = mean + how.start * noise(0)
    for iteration in range(1, how.max_steps + 2):
        denoised = denoise(y)
        sigma = noise_level(y - denoised)
        moves = (sigma >= how.end) & (sigma <= DIVERGED) & (iteration <= how.max_steps)
        yield State(y, denoised, sigma, moves)
        if not moves.any():
            return
        moved = langevin_step(y, y - denoised, how.step_size(iteration), how.beta, noise(iteration))
        y = torch.where(moves[:, None, None, None], moved, y)


def sample(
    denoise: Callable[[torch.Tensor], torch.Tensor],
    mean: float | torch.Tensor,
    noise: Noise,
    how: CoarseToFine | None = None,
) -> Samples:
    """Draw samples from the prior that a denoiser holds.

    Parameters
    ----------
    denoise : callable
        f: noisy images (B, C, H, W) -> denoised ones, without being told the noise.
    mean : float or torch.Tensor
        Where sampling starts: the mean of the data.
    noise : callable
        As from `seeded_noise`.
    how : CoarseToFine, optional
        Default: 25 steps or so.

    Examples
    --------
    >>> picture = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> drawn = sample(lambda y: picture.expand_as(y), 0.5, seeded_noise(range(3), (1, 8, 8), seed=0))
    >>> bool((drawn.images == picture).all()), bool(drawn.diverged.any())
    (True, False)
    """
    how = how or CoarseToFine()
    steps = torch.zeros((), dtype=torch.long)
    for state in states(denoise, mean, noise, how):
        steps = steps + state.moves.long().cpu()
    diverged = ~(state.sigma <= DIVERGED)  # NaN, too
    return Samples(state.denoised, state.sigma, steps, diverged)
