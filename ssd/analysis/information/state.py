"""How much a noisy state holds, how much a small image holds, and the resolution at which they meet.

The argument of arXiv:2603.08709, figure 2: a pixel is known where its signal outweighs its noise. Where pixels x_0 are
uniform on [-1, 1] and x_t = a x_0 + sigma epsilon, the expected share of known pixels is, with s = a / sigma,

    Info(t) = 1 - 2 int_0^1 Phi(-s x) dx = erf(s / sqrt 2) - sqrt(2 / pi) (1 - exp(-s^2 / 2)) / s,

and an image whose sides are r times as long holds Info(r) = r^2 of the pixels. (Phi is the normal distribution
function; the closed form follows from d/du [u Phi(-u) - phi(u)] = Phi(-u).)
"""

from __future__ import annotations

import math

import torch

from ...process.resolution import CURVES


def state_information(signal: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Info(t), in [0, 1].

    Parameters
    ----------
    signal, sigma : torch.Tensor
        a_t >= 0 and sigma_t >= 0, of one shape, not both 0; sigma_t = 0 is the clean image, which holds everything.

    Examples
    --------
    >>> state_information(torch.tensor([1.0, 0.8, 0.0]), torch.tensor([0.0, 0.6, 1.0]))
    tensor([1.0000, 0.4652, 0.0000])
    """
    s = signal.to(torch.float64) / sigma.to(torch.float64)
    lost = -torch.expm1(-(s.square()) / 2) / s.clamp(min=torch.finfo(torch.float64).tiny)
    information = torch.erf(s / math.sqrt(2)) - math.sqrt(2 / math.pi) * lost
    return torch.where(s == 0, 0.0, information).to(signal.dtype)


def contrast_information(signal: torch.Tensor, sigma: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
    """Info(t) with the data's own pixels in place of uniform ones: the mean of erf(s |x_0| / sqrt 2). Ours.

    Parameters
    ----------
    signal, sigma : torch.Tensor
        a_t >= 0 and sigma_t > 0, (T,).
    contrast : torch.Tensor
        The share of |x_0| in equal bins of [0, 1], as `ImageStatistics` has it.

    Examples
    --------
    >>> black_and_white = torch.zeros(100).index_fill(0, torch.tensor(99), 1.0)
    >>> contrast_information(torch.tensor([0.6]), torch.tensor([0.8]), black_and_white)
    tensor([0.5445], dtype=torch.float64)
    """
    bins = len(contrast)
    middles = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    s = signal.to(torch.float64) / sigma.to(torch.float64)
    return torch.stack([torch.erf(value * middles / math.sqrt(2)) @ contrast.to(torch.float64) for value in s])


def image_information(share: torch.Tensor) -> torch.Tensor:
    """Info(r) = r^2 of an image whose sides are r in [0, 1] times as long."""
    return share.square()


def sufficient_resolution(signal: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The share of the side, in [0, 1], at which a clean image holds as much as the state: sqrt(Info(t))."""
    return state_information(signal, sigma).sqrt()


def continuous_resolution(
    tau: float, full: int, num_levels: int, curve: str = "convex_decay", gamma: float = 0.5
) -> float:
    """The continuous resolution schedule R 2^(-(n - 1) u(tau)) in pixels, of which ours takes n steps (figure 5).

    Parameters
    ----------
    tau : float
        t / (T - 1), in [0, 1]; 0 is clean.
    full : int
        R, the side of the full resolution.
    num_levels : int
        n.
    curve, gamma
        u, of `ssd.process.resolution.CURVES`.

    Examples
    --------
    >>> [continuous_resolution(tau, 256, 4) for tau in (0.0, 0.75, 1.0)]
    [256.0, 90.50966799187809, 32.0]
    """
    return full * 2 ** (-(num_levels - 1) * CURVES[curve](tau, gamma))
