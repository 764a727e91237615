"""Bias-free denoisers: networks without additive constants, blind to the noise level.

Such a network is homogeneous, f(c y) = c f(y) for c > 0, and equal to its own linearisation, f(y) = J(y) y: all that
it does to an image is in the Jacobian (Mohan et al., ICLR 2020; Kadkhodaie et al., arXiv:2310.02557). Both networks
predict the noise, f(y) = y - r(y). The names of weights are those of the published code, so that its checkpoints load.

Shape letters: B images, C channels, H W pixels, K channels inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

EPSILON = 1e-5
"""Added to the variance under the square root."""


class BiasFreeNorm(nn.Module):
    """Batch normalisation without a bias: x / sd_c * gamma_c. The mean is not taken away.

    sd_c^2 is the variance (biased) of channel c over batch and pixels, plus 1e-5, while training; afterwards sd_c is a
    running mean of it, so that the map is linear and each image is treated alone.

    Parameters
    ----------
    channels : int
    momentum : float
        The weight of a batch in the running mean.
    """

    running_sd: torch.Tensor

    def __init__(self, channels: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.gammas = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("running_sd", torch.ones(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, K, H, W) -> (B, K, H, W)."""
        if not self.training:
            return x * (self.gammas / self.running_sd)
        deviation = (x.var(dim=(0, 2, 3), keepdim=True, unbiased=False) + EPSILON).sqrt()
        with torch.no_grad():
            self.running_sd.lerp_(deviation, self.momentum)
        return x * (self.gammas / deviation)


class BiasFreeDenoiser(nn.Module):
    """What bias-free networks share: `forward` is the residual r(y), `denoise` is y - r(y)."""

    multiple = 1
    """What height and width must be a multiple of."""

    def denoise(self, y: torch.Tensor) -> torch.Tensor:
        """The denoised images, (B, C, H, W), of noisy ones in the scale of [0, 1]; the noise level is not asked for."""
        return y - self(y)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights from a generator, normal by fan-in after He et al.; gammas and deviations are 1."""
        for name, weight in self.named_parameters():
            if name.endswith("gammas"):
                nn.init.ones_(weight)
            else:
                nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        for norm in self.modules():
            if isinstance(norm, BiasFreeNorm):
                norm.running_sd.fill_(1)

    def check_size(self, height_width: Sequence[int]) -> None:
        """Raise a ValueError unless images of this size fit."""
        if any(side % self.multiple for side in height_width):
            raise ValueError(
                f"Height and width must be multiples of {self.multiple}, which this network halves them by, "
                f"got {'x'.join(map(str, height_width))}."
            )


class BiasFreeUNet(BiasFreeDenoiser):
    """The bias-free UNet of arXiv:2310.02557: two 3x3 convolutions a block, channels doubled as pixels are halved.

    Parameters
    ----------
    channels : int
        Of the images.
    width : int
        Channels of the first block.
    blocks : int
        How often the size is halved.

    Examples
    --------
    >>> sum(weight.numel() for weight in BiasFreeUNet(width=64, blocks=3).parameters())
    7659264
    """

    def __init__(self, channels: int = 1, width: int = 64, blocks: int = 3) -> None:
        super().__init__()
        self.multiple = 2**blocks
        widths = [width * 2**block for block in range(blocks + 1)]
        self.encoder, self.decoder, self.upsample = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        first = [_convolution(channels, width), nn.ReLU(inplace=True), *_unit(width, width)]
        self.encoder["0"] = nn.Sequential(*first)
        for block in range(1, blocks):
            self.encoder[str(block)] = _two_units(widths[block - 1], widths[block])
        self.mid_block = _two_units(widths[-2], widths[-1])
        for block in reversed(range(blocks)):
            self.upsample[str(block)] = nn.ConvTranspose2d(widths[block + 1], widths[block], 2, stride=2, bias=False)
            if block:
                self.decoder[str(block)] = _two_units(2 * widths[block], widths[block])
        self.decoder["0"] = nn.Sequential(*_unit(2 * width, width), _convolution(width, channels))
        self.pool = nn.AvgPool2d(2)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """The residual, (B, C, H, W)."""
        self.check_size(y.shape[-2:])
        skips, x = [], y
        for block in range(len(self.encoder)):
            skips.append(self.encoder[str(block)](x))
            x = self.pool(skips[-1])
        x = self.mid_block(x)
        for block in reversed(range(len(self.encoder))):
            x = torch.cat([self.upsample[str(block)](x), skips[block]], dim=1)
            x = self.decoder[str(block)](x)
        return x


class BiasFreeCNN(BiasFreeDenoiser):
    """BF-CNN (Mohan et al.): a chain of 3x3 convolutions at full resolution, normalised between the first and the last.

    Parameters
    ----------
    channels : int
        Of the images.
    width : int
        Channels inside.
    layers : int
        Convolutions, at least 2.
    first_layer_linear : bool
        Leave out the ReLU after the first one.

    Examples
    --------
    >>> sum(weight.numel() for weight in BiasFreeCNN(width=64, layers=21).parameters())
    702784
    """

    def __init__(self, channels: int = 1, width: int = 64, layers: int = 21, first_layer_linear: bool = True) -> None:
        super().__init__()
        self.first_layer_linear = first_layer_linear
        ends = [channels, *[width] * (layers - 1), channels]
        self.conv_layers = nn.ModuleList(_convolution(ends[i], ends[i + 1]) for i in range(layers))
        self.BN_layers = nn.ModuleList(BiasFreeNorm(width) for _ in range(layers - 2))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """The residual, (B, C, H, W)."""
        first, *middle, last = self.conv_layers
        x = first(y) if self.first_layer_linear else first(y).relu()
        for convolution, norm in zip(middle, self.BN_layers):
            x = norm(convolution(x)).relu()
        return last(x)


def _convolution(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, padding=1, bias=False)


def _unit(inside: int, outside: int) -> list[nn.Module]:
    return [_convolution(inside, outside), BiasFreeNorm(outside), nn.ReLU(inplace=True)]


def _two_units(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(*_unit(inside, outside), *_unit(outside, outside))
