"""Noise schedules: betas, and from them a_t, sigma_t and the signal-to-noise ratio, all in float64.

    x_t | x_0 ~ N(a_t D_t x_0, sigma_t^2 I),  a_t = sqrt(abar_t),  sigma_t = sqrt(1 - abar_t)

The derivations are in docs/maths.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


def make_betas(name: str = "linear", num_timesteps: int = 1000, start: float = 1e-4, end: float = 0.02) -> torch.Tensor:
    """Variances beta_t of the one-step transitions, with diffusers' names for the schedules.

    Parameters
    ----------
    name : {"linear", "scaled_linear", "squaredcos_cap_v2"}
        Linear in beta (DDPM, arXiv:2006.11239, section 4), linear in sqrt(beta), or the cosine schedule
        (arXiv:2102.09672, equation 17), which ignores `start` and `end`.
    num_timesteps : int
        T, at least 1.
    start, end : float
        beta_0 and beta_{T-1}, in (0, 1); start <= end.

    Returns
    -------
    torch.Tensor
        Shape (T,), float64, values in (0, 1).
    """
    if num_timesteps < 1:
        raise ValueError(f"num_timesteps must be at least 1, got {num_timesteps}.")
    if name == "squaredcos_cap_v2":
        u = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
        abar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - abar[1:] / abar[:-1]).clamp(max=0.999)
    if not 0 < start <= end < 1:
        raise ValueError(f"betas need 0 < beta_start <= beta_end < 1, got beta_start={start}, beta_end={end}.")
    if name == "linear":
        return torch.linspace(start, end, num_timesteps, dtype=torch.float64)
    if name == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, num_timesteps, dtype=torch.float64) ** 2
    raise ValueError(f"Unknown beta schedule {name!r}; choose one of {', '.join(BETA_SCHEDULES)}.")


def extended_betas(betas: torch.Tensor, gain: float) -> torch.Tensor:
    """Betas that end in as much noise for images that are `gain` times as large.

    log abar_t becomes log abar_t (1 + q t / (T - 1)) with q = 2 log(gain) / -log abar_{T-1}: little noise stays as it
    was, and at the end abar is less by gain^2. Ours.

    Parameters
    ----------
    betas : torch.Tensor
        (T,), float64.
    gain : float
        At least 1: the scale of the coarsest level.

    Examples
    --------
    >>> betas = make_betas()
    >>> round(float((1 - extended_betas(betas, 4.0)).prod() / (1 - betas).prod()), 6)
    0.0625
    """
    if gain == 1:
        return betas
    log_abar = torch.log1p(-betas).cumsum(0)
    tau = torch.linspace(0, 1, len(betas), dtype=torch.float64)
    stretched = log_abar * (1 + 2 * math.log(gain) / -log_abar[-1] * tau)
    return -torch.expm1(torch.diff(stretched, prepend=torch.zeros(1, dtype=torch.float64)))


def make_blur_widths(num_timesteps: int, sigma_max: float) -> torch.Tensor:
    """Width of the accumulated blur, sigma_B(t) = sigma_max sin^2(pi tau / 2) with tau = t / (T - 1).

    The schedule of blurring diffusion (arXiv:2209.05557, section 4.2).

    Parameters
    ----------
    num_timesteps : int
        T.
    sigma_max : float
        Width at t = T-1 in pixels of the full resolution, >= 0.

    Returns
    -------
    torch.Tensor
        (T + 1,), float64; the clean image's 0 stands last, at index -1.
    """
    if sigma_max < 0:
        raise ValueError(f"blur_sigma_max cannot be negative, got {sigma_max}.")
    tau = torch.arange(num_timesteps, dtype=torch.float64) / max(num_timesteps - 1, 1)
    return torch.cat([sigma_max * torch.sin(math.pi / 2 * tau) ** 2, torch.zeros(1, dtype=torch.float64)])


def cosine_log_snr(num_timesteps: int, low: float = -10.0, high: float = 10.0) -> torch.Tensor:
    """log SNR of the cosine schedule, -2 log tan(u), with u linear in time from log SNR `high` to `low`.

    The schedule of blurring diffusion (arXiv:2209.05557, section 4.2): u = pi tau / 2, cut off at both ends.

    Parameters
    ----------
    num_timesteps : int
        T. Timestep t has tau = (t + 1) / T, so that tau = 0 is left to the clean image.
    low, high : float
        The log SNR at tau = 1 and tau = 0.

    Returns
    -------
    torch.Tensor
        (T,), float64, decreasing.
    """
    first, last = math.atan(math.exp(-high / 2)), math.atan(math.exp(-low / 2))
    tau = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
    return -2 * torch.log(torch.tan(first + (last - first) * tau))


@dataclass(frozen=True)
class NoiseSchedule:
    """a_t and sigma_t for t = -1..T-1.

    Both tensors have T + 1 entries: the clean image's (a = 1, sigma = 0) stands last, so that the timestep
    -1 finds it by ordinary indexing.

    Attributes
    ----------
    signal : torch.Tensor
        a_t, shape (T + 1,), float64, in (0, 1].
    sigma : torch.Tensor
        sigma_t, shape (T + 1,), float64, in [0, 1).
    """

    signal: torch.Tensor
    sigma: torch.Tensor

    @classmethod
    def from_betas(cls, betas: torch.Tensor) -> NoiseSchedule:
        """Build the schedule from variances `betas`, shape (T,), values in (0, 1)."""
        # log1p / expm1 keep sigma_0 = 0.01 exact to round-off, where 1 - prod(1 - beta) cancels.
        log_abar = torch.log1p(-betas.to(torch.float64)).cumsum(0)
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        return cls(
            signal=torch.cat([torch.exp(log_abar / 2), one]),
            sigma=torch.cat([torch.sqrt(-torch.expm1(log_abar)), zero]),
        )

    @classmethod
    def from_log_snr(cls, log_snr: torch.Tensor) -> NoiseSchedule:
        """Build the schedule from log(a_t^2 / sigma_t^2), shape (T,)."""
        log_snr = log_snr.to(torch.float64)
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        return cls(
            signal=torch.cat([torch.sigmoid(log_snr).sqrt(), one]),
            sigma=torch.cat([torch.sigmoid(-log_snr).sqrt(), zero]),
        )

    @property
    def num_timesteps(self) -> int:
        """T, the number of noisy states."""
        return len(self.signal) - 1

    @property
    def snr(self) -> torch.Tensor:
        """Signal-to-noise ratio a_t^2 / sigma_t^2 for t = 0..T-1: shape (T,), float64, decreasing."""
        return (self.signal[:-1] / self.sigma[:-1]) ** 2
