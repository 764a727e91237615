"""The log-SNR that a state has of its image: of its own pixels, and in effect, after shrinking.

    l_t = log(a_t / sigma_t),    l_eff(t) = l_t + log |D_t 1| / |1|

1 is the image whose pixels are all one. Shrinking keeps its brightness but not its norm: halving the sides loses log 2,
since four pixels become one that is as noisy as each of them. Other coarse directions lose about as much, so that l_eff
is what x_t knows of them. It falls in t across level changes, too. Ours (docs/maths.md, section 4).
"""

from __future__ import annotations

import torch

from .diffusion import DiffusionProcess


def half_log_snr(process: DiffusionProcess, t: int) -> float:
    """l_t, half the log of SNR(t); infinite for the clean image, t = -1."""
    return float(torch.log(process.signal(t)) - torch.log(process.sigma(t)))


def effective_half_log_snrs(process: DiffusionProcess) -> list[float]:
    """l_eff(t) for t = 0..T-1, falling."""
    offsets = [level_offset(process, level) for level in range(len(process.resolution.resolutions))]
    own = torch.log(process.noise.signal[:-1]) - torch.log(process.noise.sigma[:-1])
    return [value + offsets[level] for value, level in zip(own.tolist(), process.resolution.levels)]


def level_offset(process: DiffusionProcess, level: int) -> float:
    """log |D 1| / |1| for D from the full resolution to `level`; blur keeps 1."""
    ones = torch.ones(1, 1, *process.size(-1), dtype=torch.float64)
    small = process.degrade(ones, process.resolution.level_starts[level])
    return float(torch.log(torch.linalg.vector_norm(small) / torch.linalg.vector_norm(ones)))
