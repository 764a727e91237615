"""Random numbers as functions of what they are for: (seed, purpose, step, rank, ..), never of what ran before.

That makes an interrupted run continue exactly, and an image independent of the batch it was made in.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch


def _sequence(seed: int, purpose: str, *indices: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *indices])


def numpy_generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """A NumPy generator for one purpose, e.g. `numpy_generator(0, "route", step)`; integers are >= 0."""
    return np.random.default_rng(_sequence(seed, purpose, *indices))


def torch_generator(seed: int, purpose: str, *indices: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator for one purpose, e.g. `torch_generator(0, "noise", step, rank)`."""
    state = _sequence(seed, purpose, *indices).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


def seed_torch(seed: int, purpose: str, *indices: int) -> None:
    """Seed PyTorch's own generators, from which dropout draws, for one purpose."""
    torch.manual_seed(torch_generator(seed, purpose, *indices).initial_seed())


def random_words(seed: int, purpose: str, numbers: range) -> np.ndarray:
    """Four random 64-bit words for each of consecutive numbers, in one call.

    Counter-based (Philox, Salmon et al., SC 2011): number n has block n of the stream of (seed, purpose), whichever
    range it is asked for in.

    Parameters
    ----------
    seed : int
        At least 0.
    purpose : str
    numbers : range
        Step 1, within 0..2^64 - 1.

    Returns
    -------
    np.ndarray
        (len(numbers), 4), uint64, uniform.

    Examples
    --------
    >>> bool((random_words(0, "image", range(8))[5:] == random_words(0, "image", range(5, 8))).all())
    True
    """
    key = _sequence(seed, purpose).generate_state(2, np.uint64)
    stream = np.random.Philox(key=key, counter=numbers.start)
    return stream.random_raw(4 * len(numbers)).reshape(-1, 4)


def uniform(words: np.ndarray) -> np.ndarray:
    """Random 64-bit words as numbers in [0, 1), float64, by their upper 53 bits."""
    return (words >> np.uint64(11)) * 2.0**-53
