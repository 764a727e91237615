"""What a trained network knows beyond the best linear denoiser: the squared errors of both within every level.

By the I-MMSE identity (arXiv:cs/0412108) the area under 1/2 snr mse over log snr is the information gained between two
noise levels. No denoiser's error is less than the least, so that the area of the better of two, the network and
Wiener's filter, is an upper bound of what the images hold. The filter's alone belongs to Gaussian images of the same
covariance: the area between them is what makes the images other than Gaussian, as far as the network has learned it.
Ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm

from ...evaluation.calibrate import timesteps_of
from ...evaluation.denoising import Denoiser
from ...evaluation.given_images import NumberedImages
from ...operators.sizes import Size
from ...seeding import torch_generator
from .gaussian import LevelInformation, effective_dimension, measured_bits

NUM_TIMESTEPS = 16
"""Per level."""


@dataclass(frozen=True)
class NetworkInformation:
    """A level of a network, by rising signal-to-noise ratio; of one channel.

    Attributes
    ----------
    size : (height, width)
    timesteps : list of int
    snr : torch.Tensor
        (N,).
    error, wiener : torch.Tensor
        Mean squared norms of the errors of D_l x_0: of the network, and of the best linear denoiser, (N,).
    bits, gaussian_bits : torch.Tensor
        Information, (N,): by the lesser error of both, from the Gaussian one at the first timestep on; and Gaussian.
    """

    size: Size
    timesteps: list[int]
    snr: torch.Tensor
    error: torch.Tensor
    wiener: torch.Tensor
    bits: torch.Tensor
    gaussian_bits: torch.Tensor

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        return {
            name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in vars(self).items()
        }

    def sentence(self) -> str:
        """For people."""
        (height, width), ratio = self.size, self.error / self.wiener
        gained, gaussian = (float(bits[-1] - bits[0]) for bits in (self.bits, self.gaussian_bits))
        return (
            f"{height} x {width}, t = {self.timesteps[0]} to {self.timesteps[-1]}: the network's error is "
            f"{float(ratio.min()):.2f} to {float(ratio.max()):.2f} of Wiener's; at most {gained:.1f} bits are gained, "
            f"{gaussian:.1f} if Gaussian"
        )


def network_information(
    denoiser: Denoiser, images: NumberedImages, information: LevelInformation, seed: int = 0
) -> list[NetworkInformation]:
    """Measure every level of a network, finest first, at `NUM_TIMESTEPS` timesteps.

    Parameters
    ----------
    denoiser : Denoiser
    images : NumberedImages
        Best of images that the network has not learned from.
    information : LevelInformation
        Of the data, at the levels of the network.
    seed : int
        Of the noise.
    """
    process, found = denoiser.process, []
    grids = [
        sorted(timesteps_of(process, level, NUM_TIMESTEPS), reverse=True) for level in range(len(information.variances))
    ]
    with tqdm(total=len(images) * sum(map(len, grids)), desc="network", unit=" predictions", delay=2) as progress:
        for level, timesteps in enumerate(grids):
            total = torch.zeros(len(timesteps), dtype=torch.float64)
            for batch in images:
                for row, t in enumerate(timesteps):
                    generators = [torch_generator(seed, "information noise", t, number) for number in batch.numbers]
                    error = denoiser.error(batch.x_0, t - 1, t, generators, batch.labels)
                    total[row] += error.double().square().sum().cpu()
                    progress.update(len(batch.x_0))
            error = total / (len(images) * denoiser.unet.config.in_channels)
            found.append(_level(denoiser, level, timesteps, error, information))
    return found


def _level(
    denoiser: Denoiser, level: int, timesteps: list[int], error: torch.Tensor, information: LevelInformation
) -> NetworkInformation:
    snr, size = denoiser.process.noise.snr[timesteps], denoiser.process.resolution.resolutions[level]
    wiener = effective_dimension(snr, information.variances[level]) / snr
    gaussian = information.bits(snr, level)
    # The integral of Wiener's error is known, so that only the difference is summed by trapezoids.
    bits = gaussian + measured_bits(snr, torch.minimum(error, wiener) - wiener, 0.0)
    return NetworkInformation(size, timesteps, snr, error, wiener, bits, gaussian)
