"""Training target and loss weight (arXiv:2603.08709, section 3).

Shape letters: B batch, C channels; H W the size of x_s, h w the size of x_t.
"""

from __future__ import annotations

import torch

from ..operators.placing import like
from .scale_space import ScaleSpaceProcess


def training_pair(
    process: ScaleSpaceProcess, x_0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and target of the network: x_t, and the clean image at the next resolution, that of s = t - 1.

    Parameters
    ----------
    process : ScaleSpaceProcess
    x_0 : torch.Tensor
        Clean images at full resolution, (B, C, R, R), values in [-1, 1].
    t : torch.Tensor
        Per-image timesteps (B,), best on the CPU, with one level among the t and one among the t - 1.
    noise : torch.Tensor
        White noise (B, C, h, w).

    Returns
    -------
    x_t : torch.Tensor
        (B, C, h, w).
    target : torch.Tensor
        (B, C, H, W).
    """
    return process.marginal_sample(x_0, t, noise), process.target(x_0, t - 1)


def min_snr_loss(
    process: ScaleSpaceProcess,
    prediction: torch.Tensor,
    target: torch.Tensor,
    t: torch.Tensor,
    max_snr: float = 5.0,
) -> torch.Tensor:
    """min(SNR(t), max_snr) * mean squared error, one value per image: (B,), float32.

    Min-SNR weighting of x_0 prediction (arXiv:2303.09556, equation 5), as in the paper's recipe.

    Parameters
    ----------
    prediction, target : torch.Tensor
        (B, C, H, W).
    t : torch.Tensor
        (B,), values in 0..T-1; best on the CPU, where they cost no wait for the device.
    max_snr : float
        The largest weight, positive; 5 in the paper.
    """
    error = (prediction.float() - target.float()).square().flatten(1).mean(dim=1)
    t = t.cpu()
    snr = (process.signal(t) / process.sigma(t)).square().flatten()
    return like(snr.clamp(max=max_snr), error) * error
