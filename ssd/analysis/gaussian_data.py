"""Gaussian images, whose perfect network is a matrix.

Shape letters: H W the full resolution, D = H W; n_t the number of pixels of x_t, n_s of x_s, s < t.
"""

from __future__ import annotations

import torch

from ..operators.kernels import dct_matrix
from ..operators.sizes import Size
from ..process.scale_space import ScaleSpaceProcess


def power_law_covariance(
    size: Size, mean_variance: float = 0.25, offset: float = 0.5, exponent: float = 2.0
) -> torch.Tensor:
    """Covariance of images with the spectrum (offset + f^2)^(-exponent / 2), f^2 = i^2 + j^2 of DCT frequencies. Ours.

    Parameters
    ----------
    size : (height, width)
    mean_variance : float
        Mean of the pixels' variances; 0.25 is about that of natural images in [-1, 1].
    offset : float
        Positive; bounds the variance of the mean brightness.
    exponent : float
        Natural images have about 2; less is rougher.

    Returns
    -------
    torch.Tensor
        C, shape (D, D), float64, symmetric positive definite.
    """
    frequencies_h, frequencies_w = (torch.arange(length, dtype=torch.float64) for length in size)
    spectrum = (offset + frequencies_h[:, None] ** 2 + frequencies_w**2) ** (-exponent / 2)  # (H, W)
    spectrum *= mean_variance / spectrum.mean()
    basis = torch.kron(dct_matrix(size[0]), dct_matrix(size[1]))  # (D, D), a row per frequency
    return basis.T @ (spectrum.view(-1, 1) * basis)


def posterior_mean_matrix(process: ScaleSpaceProcess, data_covariance: torch.Tensor, s: int, t: int) -> torch.Tensor:
    """The best denoiser of Gaussian data as a matrix: E[D_s x_0 | x_t] = E x_t, the perfect network. Ours.

        E = a_t D_s C D_t^T (a_t^2 D_t C D_t^T + sigma_t^2 I)^{-1}

    Parameters
    ----------
    process : ScaleSpaceProcess
    data_covariance : torch.Tensor
        C, shape (D, D), float64.
    s, t : int
        -1 <= s < t.

    Returns
    -------
    torch.Tensor
        E^T, shape (n_t, n_s), float64: row i is the prediction for the i-th basis vector of x_t.
    """
    seen = degrade_rows(process, data_covariance, t).T  # D_t C, (n_t, D)
    covariance_t = process.signal(t) ** 2 * degrade_rows(process, seen, t)
    covariance_t.diagonal().add_(process.sigma(t) ** 2)
    target = process.signal(t) * degrade_rows(process, seen, s)
    return torch.cholesky_solve(target, torch.linalg.cholesky(covariance_t))


def residual_covariance(process: ScaleSpaceProcess, data_covariance: torch.Tensor, s: int, t: int) -> torch.Tensor:
    """What the perfect network does not know: the covariance of D_s x_0 given x_t. Ours.

        R = D_s C D_s^T - a_t E D_t C D_s^T

    Parameters
    ----------
    process : ScaleSpaceProcess
    data_covariance : torch.Tensor
        C, shape (D, D), float64.
    s, t : int
        -1 <= s < t.

    Returns
    -------
    torch.Tensor
        Shape (n_s, n_s), float64.
    """
    of_s = degrade_rows(process, data_covariance, s)  # C D_s^T, (D, n_s)
    of_both = degrade_rows(process, of_s.T, t)  # D_s C D_t^T, (n_s, n_t)
    known = of_both @ posterior_mean_matrix(process, data_covariance, s, t)
    residual = degrade_rows(process, of_s.T, s) - process.signal(t) * known
    return (residual + residual.T) / 2


def degrade_rows(process: ScaleSpaceProcess, matrix: torch.Tensor, t: int) -> torch.Tensor:
    """matrix D_t^T: each row of (m, D) is an image; returns (m, n_t)."""
    return process.degrade(matrix.reshape(-1, 1, *process.size(-1)), t).flatten(1)
