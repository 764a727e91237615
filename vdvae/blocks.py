"""The blocks of VDVAE: bottlenecks of four convolutions, without any normalisation (arXiv:2011.10650, figure 3).

Shape letters: B batch, W channels of the state, R its side in pixels, Z latent channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import nn

from .precision import at_least_float32

StateNorm = Literal["none", "unit", "rms"]
STATE_NORMS = get_args(StateNorm)


def conv(in_channels: int, out_channels: int, kernel_size: int = 1, scale: float = 1.0) -> nn.Conv2d:
    """A convolution that keeps the size. It starts with zero bias, and with PyTorch's weights times `scale`."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    with torch.no_grad():
        layer.weight.mul_(scale)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


class Block(nn.Module):
    """1x1, 3x3, 3x3, 1x1 convolutions, with an exact GELU before each.

    Parameters
    ----------
    in_channels, inner_channels, out_channels : int
    resolution : int
        The side of the state. At 2 pixels and below all kernels are 1x1.
    scale : float
        The factor of the last convolution's initial weights; 0 makes the block start as zero.
    """

    def __init__(
        self, in_channels: int, inner_channels: int, out_channels: int, resolution: int, scale: float = 1.0
    ) -> None:
        super().__init__()
        kernel_size = 3 if resolution > 2 else 1
        self.c1 = conv(in_channels, inner_channels)
        self.c2 = conv(inner_channels, inner_channels, kernel_size)
        self.c3 = conv(inner_channels, inner_channels, kernel_size)
        self.c4 = conv(inner_channels, out_channels, scale=scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, R, R) -> (B, out_channels, R, R)."""
        for layer in (self.c1, self.c2, self.c3, self.c4):
            x = layer(F.gelu(x))
        return x


def normalise_state(x: torch.Tensor, state_norm: StateNorm) -> torch.Tensor:
    """The state of every image divided by its norm over channels and pixels.

    unit: norm 1, as in arXiv:2301.08187, table 2. rms: mean square 1, which takes the norm's growth over the blocks
    away as well, and leaves the elements' scale as it is.

    Examples
    --------
    >>> x = torch.full((1, 4, 2, 2), 3.0)
    >>> float(normalise_state(x, "unit").norm()), float(normalise_state(x, "rms").square().mean())
    (1.0, 1.0)
    """
    if state_norm == "none":
        return x
    unit = F.normalize(x.flatten(1), dim=1).view_as(x)
    return unit if state_norm == "unit" else unit * x[0].numel() ** 0.5


class CellOutput(NamedTuple):
    """What one cell of the top-down pass gives.

    Attributes
    ----------
    state : torch.Tensor
        (B, W, R, R).
    latent : torch.Tensor
        z, (B, Z, R, R).
    kl : torch.Tensor
        (B,), nats per image: KL(posterior | prior), or its estimate from z alone; zero where z is not of the posterior.
    """

    state: torch.Tensor
    latent: torch.Tensor
    kl: torch.Tensor


def gaussian_kl(
    mean: torch.Tensor, log_scale: torch.Tensor, prior_mean: torch.Tensor, prior_log_scale: torch.Tensor
) -> torch.Tensor:
    """KL(N(mean, e^(2 log_scale)) | N(prior_mean, e^(2 prior_log_scale))) per element, in nats.

    Examples
    --------
    >>> zero = torch.zeros(())
    >>> float(gaussian_kl(zero + 2, zero, zero, zero))
    2.0
    """
    squares = log_scale.exp().square() + (mean - prior_mean).square()
    return prior_log_scale - log_scale - 0.5 + 0.5 * squares / prior_log_scale.exp().square()


class Cell(nn.Module):
    """One cell of the top-down pass: a latent is drawn, and added to the state with what the prior says.

        (pm, plog, h) = prior(v),   (qm, qlog) = posterior(v, activation)
        z = qm + exp(qlog) noise    (or pm + temperature exp(plog) noise, from the prior)
        v <- v + h + project(z),    v <- v + block(v)

    These are the two steps of the Euler scheme of arXiv:2301.08187, theorem 4.

    Parameters
    ----------
    width, inner_channels, latent_channels, resolution : int
    scale : float
        The factor of the initial weights of what is added to the state: 1 / sqrt(number of cells applied).
    stochastic : bool
        Whether the cell has a posterior. Without one z is the prior's mean.
    residual : bool
        Whether v is added to what the cell computes; False is the paper's ablation.
    """

    def __init__(
        self,
        width: int,
        inner_channels: int,
        latent_channels: int,
        resolution: int,
        scale: float,
        stochastic: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.posterior = Block(2 * width, inner_channels, 2 * latent_channels, resolution) if stochastic else None
        self.prior = Block(width, inner_channels, 2 * latent_channels + width, resolution, scale=0.0)
        self.project = conv(latent_channels, width, scale=scale)
        self.block = Block(width, inner_channels, width, resolution, scale=scale)
        self.residual = residual
        self._split = (2 * latent_channels, width)

    def forward(
        self,
        state: torch.Tensor,
        activation: torch.Tensor | None = None,
        latent: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        temperature: float = 1.0,
        sampled_kl: bool = False,
    ) -> CellOutput:
        """Run the cell.

        Parameters
        ----------
        state : torch.Tensor
            v, (B, W, R, R).
        activation : torch.Tensor, optional
            The encoder's, (B, W, R, R): z is of the posterior.
        latent : torch.Tensor, optional
            z itself, (B, Z, R, R).
        noise : torch.Tensor, optional
            Standard normals, (B, Z, R, R). Without them, and without `latent`, z is the mean of its distribution.
        temperature : float
            The factor of the prior's scale, at least 0.
        sampled_kl : bool
            Give log q(z) - log p(z) of the drawn z, whose expectation the KL is.
        """
        of_prior, shift = self.prior(state).split(self._split, dim=1)
        prior_mean, prior_log_scale = at_least_float32(of_prior).chunk(2, dim=1)
        kl = prior_mean.new_zeros(len(state))
        if latent is not None:
            z = latent
        elif activation is not None and self.posterior is not None:
            of_posterior = self.posterior(torch.cat([state, activation], dim=1))
            mean, log_scale = at_least_float32(of_posterior).chunk(2, dim=1)
            z = mean if noise is None else mean + log_scale.exp() * noise
            if sampled_kl:
                elements = _log_density(z, mean, log_scale) - _log_density(z, prior_mean, prior_log_scale)
            else:
                elements = gaussian_kl(mean, log_scale, prior_mean, prior_log_scale)
            kl = elements.sum(dim=(1, 2, 3))
        else:
            z = prior_mean if noise is None else prior_mean + temperature * prior_log_scale.exp() * noise
        z = z.to(state.dtype)
        step = shift + self.project(z)
        state = state + step if self.residual else step
        state = state + self.block(state) if self.residual else self.block(state)
        return CellOutput(state, z, kl)


def _log_density(z: torch.Tensor, mean: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """The logarithm of a normal density, without the constant, which falls out of differences."""
    return -0.5 * ((z - mean) * (-log_scale).exp()).square() - log_scale


class Checkpointed(nn.Module):
    """A module that can run its parts with gradient checkpointing, which diffusers' `ModelMixin` switches on."""

    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Any]

    def run(self, part: nn.Module, *inputs: Any) -> Any:
        """part(*inputs); with gradient checkpointing only its inputs are kept for the backward pass."""
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(part, *inputs)
        return part(*inputs)
