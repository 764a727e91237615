"""Power-function averages of the weights, and any of them from a few that were stored (arXiv:2312.02696, section 3).

The average of exponent gamma after n updates weighs time tau in [0, n] by

    p(tau) = (gamma + 1) tau^gamma / n^(gamma + 1),

whose standard deviation, relative to n, is its width: sigma^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)). Then

    average_n = beta_n average_(n-1) + (1 - beta_n) weights_n,        beta_n = (1 - 1 / n)^(gamma + 1)

gives the weights of update k the share int_(k-1)^k p(tau) dtau, since the product of the betas telescopes to
(k / n)^(gamma + 1): it is that average exactly, of weights that stand still between updates. Averages of other widths,
and of earlier times, are about linear combinations of stored ones: of least squared difference between the profiles,
whose inner products are integrals of powers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDEST = math.sqrt(1 / 12)
"""The width of the plain mean of all weights, gamma = 0."""


class Profile(NamedTuple):
    """What an average weighs.

    Attributes
    ----------
    exponent : float
        gamma, at least 0.
    updates : int
        n, at least 1.
    """

    exponent: float
    updates: int


def exponent_of(width: float) -> float:
    """gamma of a relative width in (0, 0.2887).

    Raises
    ------
    ValueError
        For another width.

    Examples
    --------
    >>> [round(exponent_of(width), 2) for width in (0.05, 0.1)]
    [16.97, 6.94]
    """
    if not 0 < width < WIDEST:
        raise ValueError(f"A relative width must be in (0, {WIDEST:.4f}), got {width}.")
    inverse = width**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(roots.real.max())


def inner_product(one: Profile, other: Profile) -> float:
    """int p q dtau over the time that both have.

    Examples
    --------
    >>> inner_product(Profile(0.0, 10), Profile(0.0, 20))
    0.05
    """
    early, late = sorted((one, other), key=lambda profile: profile.updates)
    both = early.exponent + late.exponent + 1
    ratio = early.updates / late.updates
    return (early.exponent + 1) * (late.exponent + 1) / both * ratio**late.exponent / late.updates


def coefficients(stored: Sequence[Profile], wanted: Profile) -> tuple[np.ndarray, float]:
    """How much of every stored average gives the wanted one: the best combination, and the error of its profile.

    Parameters
    ----------
    stored : sequence of Profile
        All different.
    wanted : Profile

    Returns
    -------
    shares : np.ndarray
        (K,), float64.
    error : float
        The norm of the difference between the profiles, relative to that of the wanted one.

    Examples
    --------
    >>> stored = [Profile(7.0, 100), Profile(17.0, 100)]
    >>> shares, error = coefficients(stored, stored[1])
    >>> abs(shares).round(6).tolist(), round(error, 6)
    ([0.0, 1.0], 0.0)
    """
    # In units of the profiles' norms, since their inner products differ by orders of magnitude.
    norms = np.array([math.sqrt(inner_product(each, each)) for each in stored])
    gram = np.array([[inner_product(a, b) for b in stored] for a in stored]) / np.outer(norms, norms)
    norm = math.sqrt(inner_product(wanted, wanted))
    right = np.array([inner_product(each, wanted) for each in stored]) / (norms * norm)
    shares = np.linalg.lstsq(gram, right, rcond=1e-12)[0]
    square = 1 - 2 * shares @ right + shares @ gram @ shares
    return shares * norm / norms, math.sqrt(max(0.0, float(square)))
