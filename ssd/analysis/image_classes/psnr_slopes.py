"""How fast a denoiser's error falls with the noise: the slope of output PSNR against input PSNR.

The best denoiser of C^alpha images has the squared error sigma^(2 alpha / (alpha + 1)) as sigma -> 0 (Korostelev and
Tsybakov 1993; arXiv:2310.02557), so that its output PSNR rises with its input PSNR by alpha / (alpha + 1):
more smoothness, closer to 1, the slope of a manifold of few dimensions.

Without a network the same slope follows from coefficients whose energies fall as c_k = k^-(alpha + 1), each shrunk by
one who knows its energy: error(sigma) = sum_k sigma^2 c_k / (c_k + sigma^2).

PSNR in dB is -10 log10 of the mean squared error, for values in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import zeta
from scipy.stats import linregress

NUM_COEFFICIENTS = 1_000_000


def expected_slope(alpha: float) -> float:
    """alpha / (alpha + 1)."""
    return alpha / (alpha + 1)


def sigma_of_psnr(psnr: float) -> float:
    """The noise whose PSNR this is.

    Examples
    --------
    >>> sigma_of_psnr(20)
    0.1
    """
    return 10 ** (-psnr / 20)


def oracle_errors(alpha: float, sigmas: Sequence[float]) -> list[float]:
    """The error at each sigma of one who knows the energies k^-(alpha + 1), k = 1, 2, ..

    The sum is direct over the first million. Of the rest c_k is taken for sigma^2 c_k / (c_k + sigma^2), so that it is
    Hurwitz's zeta function; relative to the rest, c_k / sigma^2 at the last of the million is neglected.

    Parameters
    ----------
    alpha : float
        Positive.
    sigmas : sequence of float
        Each such that sigma^2 is large against 1e-6 to the power of alpha + 1.
    """
    energies = np.arange(1.0, NUM_COEFFICIENTS + 1) ** -(alpha + 1)
    rest = zeta(alpha + 1, NUM_COEFFICIENTS + 1)
    return [float((sigma**2 * energies / (energies + sigma**2)).sum() + rest) for sigma in sigmas]


def oracle_curve(alpha: float, input_psnr: Sequence[float]) -> list[float]:
    """-10 log10 of `oracle_errors` at each input PSNR."""
    return [-10 * math.log10(error) for error in oracle_errors(alpha, [sigma_of_psnr(psnr) for psnr in input_psnr])]


def fit_slope(input_psnr: Sequence[float], output_psnr: Sequence[float], window: Sequence[float]) -> float:
    """The slope of a straight line through the points whose input PSNR is in the window, by least squares.

    Parameters
    ----------
    input_psnr, output_psnr : sequence of float
        In dB.
    window : (low, high)
        In dB, both included; at least two points must be in it.

    Examples
    --------
    >>> round(fit_slope([0, 10, 20, 30], [5, 12, 20, 28], window=(10, 30)), 6)
    0.8
    """
    chosen = [(x, y) for x, y in zip(input_psnr, output_psnr, strict=True) if window[0] <= x <= window[1]]
    if len(chosen) < 2:
        raise ValueError(f"The window {window[0]:g}..{window[1]:g} dB holds {len(chosen)} points: a line needs two.")
    return float(linregress(*zip(*chosen)).slope)
