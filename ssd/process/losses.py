"""Training target and loss (arXiv:2603.08709, section 3).

Shape letters: B batch, C channels; H W the size of the network's output, h w the size of x_t.
"""

from __future__ import annotations

import torch

from ..operators.placing import like
from .diffusion import DiffusionProcess

LOSSES = ("min_snr", "simple")


def training_pair(
    process: DiffusionProcess,
    x_0: torch.Tensor,
    t: torch.Tensor,
    noise: torch.Tensor,
    prediction_type: str = "sample",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and target of the network: x_t as it sees it, and what it predicts from it.

    Parameters
    ----------
    process : DiffusionProcess
    x_0 : torch.Tensor
        Clean images at full resolution, (B, C, R, R), values in [-1, 1].
    t : torch.Tensor
        Per-image timesteps (B,), best on the CPU, with one level among the t and one among the t - 1.
    noise : torch.Tensor
        White noise (B, C, h, w).
    prediction_type : {"sample", "epsilon", "v_prediction", "preconditioned"}
        The clean image at the next resolution, that of s = t - 1; or the noise or the velocity, wherever the image does
        not grow (see `DiffusionProcess.prediction_kind`); or what a linear estimate of the clean image leaves.

    Returns
    -------
    network_input : torch.Tensor
        (B, C, h, w), x_t but for a preconditioned prediction.
    target : torch.Tensor
        (B, C, H, W).
    """
    x_t = process.marginal_sample(x_0, t, noise)
    target = process.network_target(prediction_type, x_0, x_t, t, noise)
    return process.network_input(prediction_type, x_t, t), target


def denoising_loss(
    process: DiffusionProcess,
    output: torch.Tensor,
    target: torch.Tensor,
    t: torch.Tensor,
    prediction_type: str = "sample",
    loss: str = "min_snr",
    max_snr: float = 5.0,
) -> torch.Tensor:
    """The weighted mean squared error of the network's output, one value per image: (B,), float32.

    Parameters
    ----------
    process : DiffusionProcess
    output, target : torch.Tensor
        (B, C, H, W).
    t : torch.Tensor
        (B,), values in 0..T-1; best on the CPU, where they cost no wait for the device.
    prediction_type : {"sample", "epsilon", "v_prediction"}
        As in `training_pair`.
    loss : {"min_snr", "simple"}
        simple weights every image by 1. min_snr gives the error of the clean image the weight min(SNR, max_snr),
        whatever the network predicts: since the errors of noise and velocity are SNR and SNR + 1 times that of the
        clean image, theirs are min(SNR, max_snr) / SNR and / (SNR + 1). (arXiv:2303.09556, equation 5, section 3.4.)
    max_snr : float
        Positive; 5 in the paper.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}.")
    error = (output.float() - target.float()).square().flatten(1).mean(dim=1)
    if loss == "simple":
        return error
    t = t.cpu()
    snr = (process.image_scale(t) * process.signal(t) / process.sigma(t)).square()  # of the image
    of_the_image = process.output_scale(prediction_type, t, t - 1).square()
    return like((snr.clamp(max=max_snr) * of_the_image).flatten(), error) * error
