"""A cell of a hierarchical VAE is a two-step forward Euler discretisation of a diffusion (arXiv:2301.08187, theorem 4).

A cell of a VDVAE draws first and then applies its residual block, with the steps of size dt in its weights:

    Z' = Z + mu_1(Z) dt + sigma sqrt(dt) eps,    Z'' = Z' + mu_2(Z') dt,    eps ~ N(0, I)

It approximates dZ = (mu_1 + mu_2)(Z) dt + sigma dW. Here everything is linear, mu_i(z) = A_i z, so that the Gaussian
laws of both are known and can be compared: the error of n cells of size 1 / n is proportional to 1 / n. Cells that
share their weights are cells of a diffusion whose coefficients do not depend on time: sharing R times is dt = 1 / R.

    python -m ssd.analysis.euler --cells '[8, 16, 32, 64, 128]'

prints the errors of mean and covariance at time 1 for a random linear diffusion. Shape letters: d dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.linalg import expm

from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.parser import CommandParser

Moments = tuple[torch.Tensor, torch.Tensor]
"""Mean (d,) and covariance (d, d) of a state."""


@dataclass(frozen=True)
class LinearDiffusion:
    """dZ = (A_1 + A_2) Z dt + S dW, and its start.

    Attributes
    ----------
    first, second : torch.Tensor
        A_1, of the prior's mean, and A_2, of the residual block; (d, d), float64.
    noise : torch.Tensor
        S, (d, d).
    mean, covariance : torch.Tensor
        Of Z at time 0: (d,) and (d, d).
    """

    first: torch.Tensor
    second: torch.Tensor
    noise: torch.Tensor
    mean: torch.Tensor
    covariance: torch.Tensor


def random_diffusion(dimensions: int, seed: int) -> LinearDiffusion:
    """Matrices of independent normal entries, of a norm of about 1; it starts from a point, as a VDVAE does."""
    generator = np.random.default_rng(seed)
    first, second, noise = (
        torch.from_numpy(generator.standard_normal((dimensions, dimensions))) / (2 * dimensions**0.5) for _ in range(3)
    )
    mean = torch.from_numpy(generator.standard_normal(dimensions))
    return LinearDiffusion(first, second, noise, mean, torch.zeros_like(first))


def cell_moments(diffusion: LinearDiffusion, cells: int, time: float = 1.0) -> Moments:
    """Mean and covariance after `cells` equal cells of total size `time`, in closed form.

    Parameters
    ----------
    diffusion : LinearDiffusion
    cells : int
        At least 1.
    time : float

    Examples
    --------
    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> decay = LinearDiffusion(-one, 0 * one, one, one[0], 0 * one)
    >>> mean, covariance = cell_moments(decay, 2)
    >>> float(mean), float(covariance)  # (1 - 1/2)^2, and 1/2 + 1/2 (1 - 1/2)^2
    (0.25, 0.625)
    """
    dt, identity = time / cells, torch.eye(len(diffusion.mean), dtype=torch.float64)
    draw, residual = identity + dt * diffusion.first, identity + dt * diffusion.second
    mean, covariance = diffusion.mean, diffusion.covariance
    for _ in range(cells):
        mean = residual @ draw @ mean
        drawn = draw @ covariance @ draw.T + dt * diffusion.noise @ diffusion.noise.T
        covariance = residual @ drawn @ residual.T
    return mean, covariance


def exact_moments(diffusion: LinearDiffusion, time: float = 1.0) -> Moments:
    """Mean and covariance of the diffusion itself.

    With A = A_1 + A_2 the covariance is e^{At} C e^{A^T t} + int_0^t e^{As} S S^T e^{A^T s} ds; the integral by the
    exponential of a block matrix (C. F. Van Loan, Computing integrals involving the matrix exponential, 1978).
    """
    drift, size = diffusion.first + diffusion.second, len(diffusion.mean)
    block = torch.zeros(2 * size, 2 * size, dtype=torch.float64)
    block[:size, :size], block[size:, size:] = -drift, drift.T
    block[:size, size:] = diffusion.noise @ diffusion.noise.T
    exponential = torch.from_numpy(expm(time * block.numpy()))
    flow = exponential[size:, size:].T  # e^{At}
    return flow @ diffusion.mean, flow @ diffusion.covariance @ flow.T + flow @ exponential[:size, size:]


def euler_errors(diffusion: LinearDiffusion, cells: Sequence[int]) -> list[tuple[float, float]]:
    """Norms of the errors of mean and covariance at time 1, for every number of cells."""
    exact = exact_moments(diffusion)
    found = (cell_moments(diffusion, number) for number in cells)
    return [(float((mean - exact[0]).norm()), float((cov - exact[1]).norm())) for mean, cov in found]


@dataclass(frozen=True, kw_only=True)
class EulerConfig:
    """Settings of the comparison.

    Parameters
    ----------
    cells : list of int
        Numbers of cells, each at least 1.
    dimensions : int
        Of the diffusion.
    seed : int
        Of its matrices.
    """

    cells: list[int] = field(default_factory=lambda: [8, 16, 32, 64, 128])
    dimensions: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.cells or min(self.cells) < 1:
            raise UsageError(f"--cells must be numbers of at least 1, got {self.cells}.")
        for name, low in (("dimensions", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError):
        parser = CommandParser(prog="python -m ssd.analysis.euler", description=__doc__)
        parser.add_class_arguments(EulerConfig)
        config = EulerConfig(**parser.parse_args(arguments).as_dict())
    errors = euler_errors(random_diffusion(config.dimensions, config.seed), config.cells)
    print(f"{'cells':>6} {'mean':>10} {'covariance':>10}")  # noqa: T201
    for number, (mean, covariance) in zip(config.cells, errors):
        print(f"{number:6d} {mean:10.4g} {covariance:10.4g}")  # noqa: T201


if __name__ == "__main__":
    main()
