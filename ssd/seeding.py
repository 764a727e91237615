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
