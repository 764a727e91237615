"""The bound of the likelihood of Gaussian images with a perfect network, in closed form.

What `ssd.process.likelihood` estimates from samples, as an expectation: with R the covariance of the residual
(`residual_covariance`) the step of equation (a) costs 1/2 (SNR(s) tr R - SNR(t) tr D R D^T), and where p has the
covariance R itself 1/2 log det(I + Delta^(1/2) R Delta^(1/2)), Delta = SNR(s) I - SNR(t) D^T D. Ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from ..process.scale_space import ScaleSpaceProcess
from .gaussian_data import degrade_rows, residual_covariance

CALIBRATIONS = ("none", "change", "all")


def expected_bound(
    process: ScaleSpaceProcess, data_covariance: torch.Tensor, timesteps: Sequence[int], calibrated: str = "none"
) -> dict[str, float]:
    """The parts of the bound over a chain, in nats per dimension; the density of x_0, not of its 8 bits.

    Parameters
    ----------
    process : ScaleSpaceProcess
    data_covariance : torch.Tensor
        C, (D, D), float64.
    timesteps : sequence of int
        Descending.
    calibrated : {"none", "change", "all"}
        The steps at which p has the covariance of the residual.

    Returns
    -------
    dict
        prior, within, change, decoder (a Gaussian of one variance, the best); bound, their sum; entropy, of the data;
        and gap, the difference of these two.
    """
    dimensions = len(data_covariance)
    parts = {"prior": _prior(process, data_covariance, timesteps[0]), "within": 0.0, "change": 0.0}
    for t, s in pairwise(timesteps):
        kind = "change" if process.level(s) != process.level(t) else "within"
        exact = calibrated == "all" or calibrated == kind
        parts[kind] += _step(process, residual_covariance(process, data_covariance, s, t), s, t, exact)
    variance = residual_covariance(process, data_covariance, -1, timesteps[-1]).trace() / dimensions
    parts["decoder"] = dimensions / 2 * math.log(2 * math.pi * math.e * float(variance))
    parts = {name: value / dimensions for name, value in parts.items()}
    parts["bound"] = sum(parts.values())
    log_det = float(torch.logdet(data_covariance)) / dimensions
    parts["entropy"] = (math.log(2 * math.pi * math.e) + log_det) / 2
    return parts | {"gap": parts["bound"] - parts["entropy"]}


def bits_of_8_bit_pixels(nats: float) -> float:
    """Nats per dimension of a density on [-1, 1] as bits of pixels with 256 values."""
    return nats / math.log(2) + math.log2(255 / 2)


def _prior(process: ScaleSpaceProcess, data_covariance: torch.Tensor, t: int) -> float:
    shrunk = degrade_rows(process, degrade_rows(process, data_covariance, t).T, t)
    variance = process.sigma(t) ** 2
    return float(process.signal(t) ** 2 * shrunk.trace() + len(shrunk) * (variance - 1 - variance.log())) / 2


def _step(process: ScaleSpaceProcess, residual: torch.Tensor, s: int, t: int, exact: bool) -> float:
    dense = process.operator(s, t).to_dense()
    snr_s, snr_t = ((process.signal(i) / process.sigma(i)) ** 2 for i in (s, t))
    delta = snr_s * torch.eye(len(residual), dtype=torch.float64) - snr_t * dense.T @ dense
    if not exact:
        return float((delta * residual).sum()) / 2
    root = torch.linalg.cholesky(residual)
    return float(torch.logdet(torch.eye(len(residual), dtype=torch.float64) + root.T @ delta @ root)) / 2
