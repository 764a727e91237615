"""Sliced Wasserstein distance per scale: needs no weights, and shows which scale is wrong."""

from __future__ import annotations

import numpy as np

from ...seeding import numpy_generator

NUM_SLICES = 256
CHUNK = 32


def sliced_wasserstein(real: np.ndarray, generated: np.ndarray, channels: int = 3, seed: int = 0) -> float:
    """Mean 1-D Wasserstein-1 distance of two sets of patches over random directions.

    In the manner of arXiv:1710.10196 with two differences: both sets are normalised by the real one's mean and
    standard deviation per channel, so that a wrong contrast shows; and the result is in those standard deviations,
    so that scales can be compared with one another. 0.1 means: off by a tenth of that band's standard deviation.

    Parameters
    ----------
    real, generated : np.ndarray
        (N, D) and (M, D) patches, D = channels x height x width.
    channels : int
    seed : int
        The seed of the 256 directions.
    """
    dimension = real.shape[1]
    per_channel = real.reshape(len(real), channels, -1).astype(np.float64)
    mean = np.repeat(per_channel.mean(axis=(0, 2)), dimension // channels)
    deviation = np.repeat(np.maximum(per_channel.std(axis=(0, 2)), 1e-8), dimension // channels)
    directions = numpy_generator(seed, "slices").standard_normal((dimension, NUM_SLICES))
    directions /= np.linalg.norm(directions, axis=0)
    one, two = (real - mean) / deviation, (generated - mean) / deviation
    parts = [directions[:, start : start + CHUNK] for start in range(0, NUM_SLICES, CHUNK)]
    return float(np.mean([wasserstein_1(one @ part, two @ part) for part in parts]))


def wasserstein_1(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """1-D Wasserstein-1 distance between the columns of (N, S) and (M, S), exact also for N != M -> (S,)."""
    one, two = np.sort(one, axis=0), np.sort(two, axis=0)
    if len(one) == len(two):
        return np.abs(one - two).mean(axis=0)
    # The quantile functions are constant between the points where either of them jumps.
    jumps = np.union1d(np.arange(1, len(one) + 1) / len(one), np.arange(1, len(two) + 1) / len(two))
    widths = np.diff(jumps, prepend=0.0)
    middles = jumps - widths / 2
    first, second = (np.minimum((middles * len(x)).astype(int), len(x) - 1) for x in (one, two))
    return widths @ np.abs(one[first] - two[second])
