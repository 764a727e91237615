"""Where levels could change: for each rule the first timestep from which on it holds for every coarser level.

| rule | level l may begin at t when |
|---|---|
| info | Info(t) <= 4^-l: the paper's argument, figure 2 of arXiv:2603.08709 |
| info_contrast | the same with the data's own |x_0| in place of uniform ones |
| band_snr | no cosine coefficient outside of the coarse band has a signal-to-noise ratio above 1 |
| dimension | d_eff <= 4^-l D, by the variances P_k of cosine coefficients |
| band_bits | at most 20 % of the bits lie outside of the coarse band, by P_k |
| half_bits | level l holds at least half of the bits of level l - 1 |
| level_loss | the change loses at most 0.05 bits per coarse pixel |
| missing_variance | m(t) <= 0.1: what the step at the change lacks (`ssd.analysis.missing_covariance`) |

The thresholds of info, info_contrast and dimension are factors of 4^-l. All but the last rule look at what states hold;
the last at what a sampler of first order makes of it. Ours, but the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ...process.noise import NoiseSchedule
from ...process.resolution import ResolutionSchedule
from ...process.scale_space import ScaleSpaceProcess
from ..gaussian_data import residual_covariance
from ..missing_covariance import MissingVariance, missing_variance
from .gaussian import LevelInformation, effective_dimension, information_bits
from .state import contrast_information, state_information

LARGEST_MISSING = 32 * 32
"""Pixels of an image up to which m(t) is computed: its time grows with their third power."""


@dataclass
class Evidence:
    """What rules look at.

    Attributes
    ----------
    noise : NoiseSchedule
    information : LevelInformation
    kernel : str
        How images shrink, as in `information`.
    """

    noise: NoiseSchedule
    information: LevelInformation
    kernel: str = "bilinear"
    _missing: dict[tuple[int, int], MissingVariance] = field(default_factory=dict)
    _processes: dict[int, ScaleSpaceProcess] = field(default_factory=dict)

    def spectrum_outside(self, level: int) -> torch.Tensor:
        """P_k of the full image outside of the band of a level."""
        spectrum = self.information.statistics.spectra[0]
        height, width = self.information.steps[level - 1].out_size
        outside = torch.ones_like(spectrum, dtype=torch.bool)
        outside[:height, :width] = False
        return spectrum[outside]

    def missing(self, level: int, t: int) -> MissingVariance:
        """m(t) of the change from level - 1 to `level`; a ValueError for more than `LARGEST_MISSING` pixels."""
        if (level, t) not in self._missing:
            statistics = self.information.statistics
            if statistics.covariance is None or len(statistics.covariance) > LARGEST_MISSING:
                raise ValueError(f"m(t) is computed up to {LARGEST_MISSING} pixels.")
            # The operators of a change do not depend on where the others are.
            process = self._process(level).with_switches([*range(1, level), t])
            residual = residual_covariance(process, statistics.covariance, t - 1, t)
            self._missing[level, t] = missing_variance(process, residual, t)
        return self._missing[level, t]

    def _process(self, level: int) -> ScaleSpaceProcess:
        """A process down to a level."""
        if level not in self._processes:
            sizes = [operator.out_size for operator in self.information.statistics.operators][: level + 1]
            resolution = ResolutionSchedule.from_curve(sizes, self.noise.num_timesteps)
            self._processes[level] = ScaleSpaceProcess(self.noise, resolution, self.kernel)
        return self._processes[level]


@dataclass(frozen=True)
class Rule:
    """A rule: `first` gives the first timestep of a level, or None where there is none, by a threshold."""

    threshold: float
    first: Callable[[Evidence, int, float], int | None]


def _of_curve(curve: Callable[[Evidence, int], torch.Tensor]) -> Callable[[Evidence, int, float], int | None]:
    """The first t from which on a curve (T,) is at most the threshold."""

    def first(evidence: Evidence, level: int, threshold: float) -> int | None:
        above = (curve(evidence, level) > threshold).nonzero()
        t = int(above[-1]) + 1 if len(above) else 0
        return max(t, level) if t < evidence.noise.num_timesteps else None

    return first


def _info(evidence: Evidence, level: int) -> torch.Tensor:
    noise = evidence.noise
    return 4.0**level * state_information(noise.signal[:-1], noise.sigma[:-1])


def _info_contrast(evidence: Evidence, level: int) -> torch.Tensor:
    noise, contrast = evidence.noise, evidence.information.statistics.contrast
    return 4.0**level * contrast_information(noise.signal[:-1], noise.sigma[:-1], contrast)


def _band_snr(evidence: Evidence, level: int) -> torch.Tensor:
    return evidence.noise.snr * evidence.spectrum_outside(level).max()


def _dimension(evidence: Evidence, level: int) -> torch.Tensor:
    spectrum = evidence.information.statistics.spectra[0]
    return 4.0**level * effective_dimension(evidence.noise.snr, spectrum) / spectrum.numel()


def _band_bits(evidence: Evidence, level: int) -> torch.Tensor:
    snr, spectrum = evidence.noise.snr, evidence.information.statistics.spectra[0]
    return information_bits(snr, evidence.spectrum_outside(level)) / information_bits(snr, spectrum)


def _half_bits(evidence: Evidence, level: int) -> torch.Tensor:
    information, snr = evidence.information, evidence.noise.snr
    return 1 - information.bits(snr, level) / information.bits(snr, level - 1)


def _level_loss(evidence: Evidence, level: int) -> torch.Tensor:
    information, snr = evidence.information, evidence.noise.snr
    loss = information.bits(snr, level - 1) - information.bits(snr, level)
    return loss / math.prod(information.steps[level - 1].out_size)


def _missing_variance(evidence: Evidence, level: int, threshold: float) -> int | None:
    """By bisection: m falls with t."""
    low, high = level, evidence.noise.num_timesteps - 1
    if evidence.missing(level, high).largest > threshold:
        return None
    while low < high:
        middle = (low + high) // 2
        if evidence.missing(level, middle).largest <= threshold:
            high = middle
        else:
            low = middle + 1
    return low


RULES = {
    "info": Rule(1.0, _of_curve(_info)),
    "info_contrast": Rule(1.0, _of_curve(_info_contrast)),
    "band_snr": Rule(1.0, _of_curve(_band_snr)),
    "dimension": Rule(1.0, _of_curve(_dimension)),
    "band_bits": Rule(0.2, _of_curve(_band_bits)),
    "half_bits": Rule(0.5, _of_curve(_half_bits)),
    "level_loss": Rule(0.05, _of_curve(_level_loss)),
    "missing_variance": Rule(0.1, _missing_variance),
}


def first_timesteps(evidence: Evidence, rule: str, threshold: float | None = None) -> list[int | None]:
    """By a rule the first timestep of every coarser level, each on its own; None where there is none.

    Parameters
    ----------
    evidence : Evidence
    rule : str
        One of `RULES`.
    threshold : float, optional
        Default: the rule's.
    """
    chosen = RULES[rule]
    level_numbers = range(1, len(evidence.information.steps) + 1)
    return [
        chosen.first(evidence, level, chosen.threshold if threshold is None else threshold) for level in level_numbers
    ]


def as_switches(timesteps: list[int | None], num_timesteps: int) -> list[int] | None:
    """Ascending switches, t_l = max(t_l, t_{l-1} + 1); None where some level has no timestep.

    Examples
    --------
    >>> as_switches([641, 510, 330], 1000), as_switches([205, None], 1000)
    ([641, 642, 643], None)
    """
    switches: list[int] = []
    for t in timesteps:
        if t is None or max([t, *(s + 1 for s in switches[-1:])]) >= num_timesteps:
            return None
        switches.append(max([t, *(s + 1 for s in switches[-1:])]))
    return switches
