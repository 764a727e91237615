"""Training target and loss (arXiv:2603.08709, section 3).

Shape letters: B batch, C channels; H W the size of the network's output, h w the size of x_t.
"""

from __future__ import annotations

import math

import torch

from ..operators.placing import like
from .diffusion import DiffusionProcess
from .scale_space import ScaleSpaceProcess

LOSSES = ("min_snr", "sqrt_snr", "simple")

END = 1 - 1 / 255
"""Pixels from here on are at the end of the range [-1, 1], to half a grey level of 8 bits."""


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
    clipped: torch.Tensor | None = None,
) -> torch.Tensor:
    """The weighted mean squared error of the network's output, one value per image: (B,), float32.

    Parameters
    ----------
    process : DiffusionProcess
    output, target : torch.Tensor
        (B, C, H, W).
    t : torch.Tensor
        (B,), values in 0..T-1; best on the CPU, where they cost no wait for the device.
    prediction_type : {"sample", "epsilon", "v_prediction", "preconditioned"}
        As in `training_pair`.
    loss : {"min_snr", "sqrt_snr", "simple"}
        simple weights every image by 1. min_snr gives the error of the clean image the weight min(SNR, max_snr),
        whatever the network predicts: since the errors of noise and velocity are SNR and SNR + 1 times that of the
        clean image, theirs are min(SNR, max_snr) / SNR and / (SNR + 1). (arXiv:2303.09556, equation 5, section 3.4.)
        sqrt_snr gives it the root of that weight. Coarse levels, whose SNR is small, then count for more: with min_snr
        and convex_decay(0.5) the mean weights of three levels are 1.9, 0.010 and 0.00014, and Adam, which scales all
        steps alike, hardly learns from the last. (Ours; docs/learning.md.)
    max_snr : float
        The largest SNR that counts, positive; 5 in the paper.
    clipped : torch.Tensor, optional
        The clean images of the prediction, `process.target(x_0, t)`, (B, C, H, W): the loss is that of the prediction
        after it was clipped to [-1, 1], as in sampling. Where the image is at an end of this range, such as white
        paper, the network may overshoot, which it learns much sooner than to hit the end exactly. Ours.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}.")
    t = t.cpu()
    snr = (process.image_scale(t) * process.signal(t) / process.sigma(t)).square()  # of the image
    scale = process.output_scale(prediction_type, t, t - 1)
    error = _mean_square(_error(output, target, scale, clipped))
    if loss == "simple":
        return error
    weight = snr.clamp(max=max_snr)
    weight = weight if loss == "min_snr" else weight.sqrt()
    return like((weight * scale.square()).flatten(), error) * error


def normalised_residual(
    process: DiffusionProcess,
    output: torch.Tensor,
    target: torch.Tensor,
    clean: torch.Tensor,
    t: torch.Tensor,
    prediction_type: str = "sample",
) -> torch.Tensor:
    """The error of the clipped clean image, relative to that of the best linear estimate: (B,), float32.

    1 is no better than a linear filter. The estimate knows the mean colour and the variance of the batch's images. NaN
    for a process other than scale space.

    Parameters
    ----------
    process : DiffusionProcess
    output, target : torch.Tensor
        (B, C, H, W), as in `denoising_loss`.
    clean : torch.Tensor
        `process.target(x_0, t)`, (B, C, H, W).
    t : torch.Tensor
        (B,), best on the CPU.
    prediction_type : str
        As in `training_pair`.
    """
    t = t.cpu()
    scale = process.output_scale(prediction_type, t, t - 1)
    error = _mean_square(_error(output, target, scale, clean))
    if not isinstance(process, ScaleSpaceProcess):
        return torch.full_like(error, math.nan)
    variance = (clean - clean.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
    return like(scale.square().flatten(), error) * error / process.linear_error(t, t - 1, variance.float()).flatten()


def _error(
    output: torch.Tensor, target: torch.Tensor, scale: torch.Tensor, clipped: torch.Tensor | None
) -> torch.Tensor:
    """output - target, (B, C, H, W), float32; 0 where clipping the clean image takes the error away."""
    error = output.float() - target.float()
    if clipped is None:
        return error
    of_the_image = like(scale, error) * error.detach()
    overshoots = ((clipped >= END) & (of_the_image > 0)) | ((clipped <= -END) & (of_the_image < 0))
    return error.masked_fill(overshoots, 0.0)


def _mean_square(error: torch.Tensor) -> torch.Tensor:
    """Of every image, (B,)."""
    return error.square().flatten(1).mean(dim=1)
