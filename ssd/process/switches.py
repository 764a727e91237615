"""Switches: the first timestep of every coarser level. Where the data put them, and how far they may move.

A level is left when the noise covers the details that the next one cannot hold. Let v be the variance of the images in
the null space of the first downsampling, per dimension. In x_t these details have the signal-to-noise ratio
(a_t / sigma_t)^2 v, and t_1 is the first timestep at which it is at most theta. The later switches share the rest of
the chain equally. Ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from .noise import NoiseSchedule
from .resolution import ResolutionSchedule


def switches_of_variance(noise: NoiseSchedule, variance: float, num_levels: int, theta: float = 0.01) -> list[int]:
    """The switches t_1 < .. < t_{L-1} for data whose finest details have the variance v.

        t_1 = min {t >= 1 : (a_t / sigma_t)^2 v <= theta},    t_j = t_1 + (T - t_1) (j - 1) / (L - 1), rounded

    Parameters
    ----------
    noise : NoiseSchedule
        a_t and sigma_t, t = 0..T-1.
    variance : float
        v >= 0, per dimension of the null space, of images in [-1, 1].
    num_levels : int
        L, at least 1.
    theta : float
        The signal-to-noise ratio that the details may have when they are dropped, positive.

    Raises
    ------
    ValueError
        When the details never get so weak, or so late that the other levels have no timestep left.

    Examples
    --------
    >>> from ssd.process.noise import make_betas
    >>> switches_of_variance(NoiseSchedule.from_betas(make_betas()), variance=0.01, num_levels=3)
    [259, 629]
    """
    if not theta > 0:
        raise ValueError(f"theta must be positive, got {theta}.")
    if not 0 <= variance < float("inf"):
        raise ValueError(f"The variance of the details must be a number from 0 on, got {variance}.")
    if num_levels == 1:
        return []
    num_timesteps = noise.num_timesteps
    weak = (noise.snr * variance <= theta).nonzero().flatten().tolist()
    first = max(1, weak[0]) if weak else num_timesteps
    if num_timesteps - first < num_levels - 1:
        lowest = float(noise.snr[num_timesteps - num_levels + 1]) * variance
        raise ValueError(
            f"theta={theta:g} is too small: details of variance {variance:.3g} have a signal-to-noise ratio of "
            f"{lowest:.3g} where the last {num_levels - 1} levels must begin. Use a larger theta, or fewer levels."
        )
    return [first + round((num_timesteps - first) * j / (num_levels - 1)) for j in range(num_levels - 1)]


def switch_bands(switches: Sequence[int], num_timesteps: int, jitter: float) -> list[range]:
    """The timesteps that each switch may take: from t_j - w (t_j - t_{j-1}) to t_j + w (t_{j+1} - t_j).

    Bands never meet, so that one value of each is always a schedule: where w = 1/2 makes two of them touch, the
    timestep belongs to the upper one.

    Parameters
    ----------
    switches : sequence of int
        t_1 < .. < t_{L-1}; t_0 = 0 and t_L = T.
    num_timesteps : int
        T.
    jitter : float
        w, in [0, 0.5]; 0 leaves every switch where it is.

    Examples
    --------
    >>> switch_bands([400, 700], 1000, 0.5)
    [range(200, 550), range(550, 851)]
    """
    if not 0 <= jitter <= 0.5:
        raise ValueError(f"switch_jitter must be in [0, 0.5], got {jitter}.")
    edges = [0, *switches, num_timesteps]
    reach = [int(jitter * (after - before)) for before, after in pairwise(edges)]
    lows = [switch - below for switch, below in zip(switches, reach)]
    highs = [switch + above for switch, above in zip(switches, reach[1:])]
    ends = [*lows[1:], num_timesteps]
    return [range(low, min(high + 1, end)) for low, high, end in zip(lows, highs, ends)]


def check_in_bands(switches: Sequence[int], bands: Sequence[range]) -> None:
    """Raise a ValueError that names the band of the first switch that lies outside of its own."""
    if len(switches) != len(bands):
        raise ValueError(f"{len(bands) + 1} levels need {len(bands)} switches, got {list(switches)}.")
    for number, (switch, band) in enumerate(zip(switches, bands), start=1):
        if switch not in band:
            trained = f"in {band[0]}..{band[-1]}" if len(band) > 1 else f"{band[0]}, as in training"
            raise ValueError(
                f"Switch {number} must be {trained}, got {switch}. Train with a larger switch_jitter for a wider band."
            )


def mean_cost(resolution: ResolutionSchedule) -> float:
    """Pixels that the network predicts per step, averaged over all timesteps, relative to one level.

    Examples
    --------
    >>> mean_cost(ResolutionSchedule.from_switches([(8, 8), (4, 4)], 10, [5]))
    0.7
    """
    timesteps = len(resolution.levels)
    return resolution.cost(range(timesteps - 1, -1, -1)) / timesteps
