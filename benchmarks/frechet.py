"""The Frechet distance by eigendecompositions against scipy's matrix square root, side by side in one run.

python benchmarks/frechet.py
python benchmarks/frechet.py --features 512 --repeats 3
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import scipy
from measuring import Row, read_settings, table
from scipy.linalg import sqrtm

from ssd.commands.errors import exit_on_usage_error
from ssd.evaluation.distances.frechet import frechet_distance


@dataclass
class FrechetBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    features : int
        Number of features, D; Inception has 2048.
    repeats : int
        Pairs of measurements; the median ratio is reported.
    """

    features: int = 2048
    repeats: int = 1


def main() -> None:
    with exit_on_usage_error(ValueError):
        settings = read_settings(FrechetBenchmark, __doc__)
        rows = measure(settings)
    print(table(rows))


def measure(settings: FrechetBenchmark) -> list[Row]:
    one, two = (random_moments(seed, settings.features) for seed in (0, 1))
    times, difference = [], 0.0
    for _ in range(settings.repeats):
        ours, seconds = timed(lambda: frechet_distance(*one, *two))
        theirs, their_seconds = timed(lambda: by_square_root(*one, *two))
        times.append((seconds, their_seconds))
        difference = abs(ours - theirs) / theirs
    ratio = median(ours / theirs for ours, theirs in times)
    note = f"{times[0][0]:.1f} s, {times[0][1]:.1f} s; relative difference {difference:.0e}"
    what = f"Frechet distance at {settings.features} features by eigendecompositions"
    return [Row(what, f"sqrtm of scipy {scipy.__version__}", ratio, note=note)]


def random_moments(seed: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance with eigenvalues that fall over six orders of magnitude, as those of Inception do."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    return rng.standard_normal(dimension), (basis * np.geomspace(1, 1e-6, dimension)) @ basis.T


def by_square_root(mean_1: np.ndarray, one: np.ndarray, mean_2: np.ndarray, two: np.ndarray) -> float:
    """The textbook formula."""
    difference = mean_1 - mean_2
    return float(difference @ difference + np.trace(one + two - 2 * sqrtm(one @ two).real))


def timed(work: Callable[[], float]) -> tuple[float, float]:
    """The result and the seconds it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
