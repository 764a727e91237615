"""How many bits a noisy state holds of its image, and what a level change loses, for Gaussian images in closed form.

With the signal-to-noise ratio snr = (a_t / sigma_t)^2 and the eigenvalues p of the images' covariance

    I(x_0; x_t) = 1/2 sum log2(1 + snr p)                     an upper bound for all images of this covariance
    d_eff(t)    = sum snr p / (1 + snr p)                     the trace of the best denoiser, Wiener's filter
    d I / d log snr = d_eff / 2                               in nats: I-MMSE, arXiv:cs/0412108, equation 1
    I_l(t)      = the same for D_l x_0 with the same sigma_t  what a state of level l holds

A change from level l - 1 to l loses I_{l-1} - I_l in two ways. Directions outside the row space of the downsampling D
are gone; those inside are kept with their singular values lambda (about 1/2), under the same noise. With D = U
diag(lambda) V^T and C the covariance of the finer level

    out of band   I_{l-1} - 1/2 log2 det(1 + snr V^T C V),      row space   1/2 log2 det(1 + snr V^T C V) - I_l

and neither is negative. Where no covariance was kept, the variances P_k of cosine coefficients stand for p: a larger
upper bound. Everything is of one channel, the mean over them. Ours, with equation 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from ...operators.linear import LinearOperator
from ...operators.spectral import SpectralForm
from .statistics import ImageStatistics

EIGHT_BIT_SNR = 12 * 127.5**2
"""Signal-to-noise ratio of values in [-1, 1] rounded to 8 bits: the error is uniform over 2 / 255."""


def information_bits(snr: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """I(x_0; x_t) in bits, (T,): snr (T,), variances of any shape.

    Examples
    --------
    >>> information_bits(torch.tensor([3.0]), torch.tensor([1.0, 1.0, 0.0]))
    tensor([2.])
    """
    return torch.log2(1 + snr[:, None] * variances.flatten()).sum(dim=1) / 2


def effective_dimension(snr: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """d_eff, (T,): how many directions of the image a state shows; Wiener's squared error is d_eff / snr.

    Examples
    --------
    >>> effective_dimension(torch.tensor([3.0]), torch.tensor([1.0, 1.0, 0.0]))
    tensor([1.5000])
    """
    seen = snr[:, None] * variances.flatten()
    return (seen / (1 + seen)).sum(dim=1)


@dataclass(frozen=True)
class LevelInformation:
    """The variances of which the information of every level and of every change is made.

    Attributes
    ----------
    statistics : ImageStatistics
    steps : tuple of LinearOperator
        From every level to the next coarser one, with closed-form spectra.
    """

    statistics: ImageStatistics
    steps: tuple[LinearOperator, ...]

    @property
    def exact(self) -> bool:
        """Whether p are eigenvalues of the covariance, rather than variances of cosine coefficients."""
        return self.statistics.covariance is not None

    @cached_property
    def variances(self) -> tuple[torch.Tensor, ...]:
        """Per level p, (h w,) or (h, w)."""
        if not self.exact:
            return self.statistics.spectra
        return tuple(torch.linalg.eigvalsh(c).clamp(min=0) for c in self.statistics.level_covariances)

    @cached_property
    def row_variances(self) -> tuple[torch.Tensor, ...]:
        """Per change p of V^T C V, what the row space of D shows of the finer level."""
        if not self.exact:
            sizes = [step.out_size for step in self.steps]
            return tuple(p[:height, :width] for p, (height, width) in zip(self.statistics.spectra, sizes))
        return tuple(
            torch.linalg.eigvalsh(_in_row_space(step, covariance)).clamp(min=0)
            for step, covariance in zip(self.steps, self.statistics.level_covariances)
        )

    def bits(self, snr: torch.Tensor, level: int) -> torch.Tensor:
        """I_l, (T,)."""
        return information_bits(snr, self.variances[level])

    def lost_out_of_band(self, snr: torch.Tensor, level: int) -> torch.Tensor:
        """Bits that the change from level - 1 to `level` loses with the directions that D drops, (T,)."""
        return self.bits(snr, level - 1) - information_bits(snr, self.row_variances[level - 1])

    def lost_in_row_space(self, snr: torch.Tensor, level: int) -> torch.Tensor:
        """Bits that the change from level - 1 to `level` loses because D shrinks what it keeps, (T,)."""
        return information_bits(snr, self.row_variances[level - 1]) - self.bits(snr, level)

    def image_bits(self, level: int) -> float:
        """Bits of the clean image at the size of a level, rounded to 8 bits a pixel, as if it were Gaussian."""
        return float(information_bits(torch.tensor([EIGHT_BIT_SNR], dtype=torch.float64), self.variances[level]))


def _in_row_space(step: LinearOperator, covariance: torch.Tensor) -> torch.Tensor:
    """V^T C V, (n_t, n_t)."""
    spectral = step.spectral
    if not isinstance(spectral, SpectralForm):
        raise ValueError(f"The information that a level change loses needs a closed-form spectrum, got {step!r}.")
    half = spectral.v.apply_transposed(covariance.view(-1, *step.in_size)).flatten(1)  # C V, (n_s, n_t)
    return spectral.v.apply_transposed(half.T.reshape(-1, *step.in_size)).flatten(1)


def measured_bits(snr: torch.Tensor, squared_error: torch.Tensor, first: float) -> torch.Tensor:
    """I of a denoiser's own squared errors, by I-MMSE: an upper bound where `first` is one. Linear in both.

        I(snr) = I(snr_0) + 1/2 int mse d snr = I(snr_0) + 1/2 int snr mse d log snr,    by trapezoids in log snr

    Parameters
    ----------
    snr : torch.Tensor
        Ascending, (N,).
    squared_error : torch.Tensor
        E |D_l x_0 - prediction|^2 of one channel at these, (N,).
    first : float
        I(snr_0), in bits.

    Returns
    -------
    torch.Tensor
        (N,), in bits.

    Examples
    --------
    >>> snr = torch.linspace(-5, 5, 2001, dtype=torch.float64).exp()
    >>> error = 2 / (1 + 2 * snr)  # of Gaussian numbers of variance 2
    >>> found = measured_bits(snr, error, float(torch.log2(1 + 2 * snr[0]) / 2))
    >>> bool((found - torch.log2(1 + 2 * snr) / 2).abs().max() < 1e-5)
    True
    """
    height = snr * squared_error / (2 * math.log(2))
    areas = torch.cumulative_trapezoid(height, snr.log())
    return first + torch.cat([areas.new_zeros(1), areas])
