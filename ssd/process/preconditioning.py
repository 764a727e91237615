"""The linear estimate of the clean image, about which a preconditioned network predicts the rest.

For images with the mean m and white variations of variance rho about it, and x_t = a D y + sigma noise with
D = U diag(lambda) V^T from the image y to x_t, the best linear estimate of y and its error are

    L(x_t) = m + V diag(g) U^T (x_t - a D m),    g_i = rho a lambda_i / (a^2 lambda_i^2 rho + sigma^2)
    error variance per direction: rho sigma^2 / (a^2 lambda_i^2 rho + sigma^2), and rho in the null space of D

The network sees c_in (x_t - a D m), of variance about 1, and y_hat = L(x_t) + c_out F, where c_out^2 is the mean of
the error variances. It is the preconditioning of arXiv:2206.00364 (table 1), for operators that change the size: with
D = I and m = 0 the factors are those of EDM. A network that gives 0 is the linear estimate. Ours.

A network that has to cancel the noise of x_t leaves some of it, a fine speckle, where one that predicts the clean image
gives flat areas. So the estimate may be handed over to the network: with q_i = (a lambda_i / sigma)^2 rho, the
signal-to-noise ratio of a direction,

    g_i is multiplied by q_i / (q_i + kappa)
    error variance per direction: (1 - g_i a lambda_i)^2 rho + g_i^2 sigma^2

kappa = 0 is the linear estimate everywhere; with a large kappa the network predicts the clean image but where there is
next to no noise, which it cannot see and would have to copy pixel by pixel.

Shape letters: B batch, C channels; H W the size of y, h w the size of x_t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..operators.linear import LinearOperator
from ..operators.placing import like


@dataclass(frozen=True)
class DataMoments:
    """The mean and the variances of a data set: what a linear estimate needs to know of it.

    Attributes
    ----------
    mean : tuple of float
        Of every channel, over all pixels of all images, in [-1, 1].
    variances : tuple of float
        rho, one per level, finest first: the mean squared distance from `mean` of a pixel of the images of this size.

    Raises
    ------
    ValueError
        For a variance that is not positive.
    """

    mean: tuple[float, ...]
    variances: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.mean or not self.variances or not all(0 < variance < float("inf") for variance in self.variances):
            raise ValueError(f"Variances of the data must be positive and finite, got {list(self.variances)}.")

    def to_config(self) -> dict[str, list[float]]:
        """What JSON can hold."""
        return {"mean": list(self.mean), "variances": list(self.variances)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], num_levels: int) -> DataMoments:
        """The inverse of `to_config`, for a process of so many levels."""
        if set(config) != {"mean", "variances"}:
            raise ValueError(f"data_moments must have mean and variances, got {', '.join(config) or 'nothing'}.")
        moments = cls(_numbers("mean", config["mean"]), _numbers("variances", config["variances"]))
        if len(moments.variances) != num_levels:
            raise ValueError(
                f"data_moments must have one variance for each of the {num_levels} levels, got "
                f"{len(moments.variances)}: they are measured on the sizes that the model is trained at."
            )
        return moments


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, Sequence) or not all(isinstance(value, (int, float)) for value in values):
        raise ValueError(f"data_moments: {name} must be a list of numbers, got {values!r}.")
    return tuple(float(value) for value in values)


def linear_estimate(
    operator: LinearOperator,
    rho: torch.Tensor,
    a: torch.Tensor,
    sigma: torch.Tensor,
    residual: torch.Tensor,
    kappa: float = 0.0,
) -> torch.Tensor:
    """L(x_t) - m, (B, C, H, W).

    Parameters
    ----------
    operator : LinearOperator
        D, from y to x_t.
    rho : torch.Tensor
        The variance of y, ().
    a, sigma : torch.Tensor
        () or (B, 1, 1, 1). These three are best float64, on the CPU.
    residual : torch.Tensor
        x_t - a D m, (B, C, h, w).
    kappa : float
        At least 0.

    Examples
    --------
    >>> from ssd.operators import IdentityOperator
    >>> rho, a, sigma = torch.tensor([1.0, 0.6, 0.8], dtype=torch.float64)
    >>> linear_estimate(IdentityOperator((1, 1)), rho, a, sigma, torch.ones(1, 1, 1, 1)).item()
    0.6000000238418579
    """
    return operator.spectral.gain(lambda lam: _gain(lam, rho, a, sigma, kappa), residual)


def linear_error(
    operator: LinearOperator, rho: torch.Tensor, a: torch.Tensor, sigma: torch.Tensor, kappa: float = 0.0
) -> torch.Tensor:
    """c_out^2, the mean error variance of `linear_estimate`, with its other arguments: () or (B, 1, 1, 1).

    They may be on any device, all on one.
    """

    def variance(lam: torch.Tensor) -> torch.Tensor:
        lam = like(lam, rho)
        if kappa == 0:  # without cancellation
            return rho * sigma.square() / ((a * lam).square() * rho + sigma.square())
        gain = _gain(lam, rho, a, sigma, kappa)
        return (1 - gain * a * lam).square() * rho + (gain * sigma).square()

    return operator.spectral.covariance(variance).mean_variance()


def input_scale(rho: torch.Tensor, a: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """c_in = 1 / sqrt(a^2 rho + sigma^2), for images of variance rho at the size of x_t."""
    return (a.square() * rho + sigma.square()).rsqrt()


def _gain(lam: torch.Tensor, rho: torch.Tensor, a: torch.Tensor, sigma: torch.Tensor, kappa: float) -> torch.Tensor:
    """g_i for the gain lambda_i."""
    signal, noise = (a * lam).square() * rho, sigma.square()
    best = rho * a * lam / (signal + noise)
    return best if kappa == 0 else best * signal / (signal + kappa * noise)
