"""The whole reverse chain with a perfect network, in closed form: covariances in place of samples.

For Gaussian data the perfect network is linear in x_t, so that every step is linear in the state and what second order
remembers: (x_s, predictions) = F (x_t, predictions) + (N(0, Q), 0). Covariances go from one state to the next by
F P F^T + Q. F and Q are taken from `process.posterior` and `solver.extrapolate`, applied to basis vectors. Ours.

Shape letters: D the pixels of a full image; n_t those of x_t; m the numbers of the state and the kept predictions
together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..evaluation.distances.frechet import frechet_distance
from ..operators.sizes import Size
from ..process.scale_space import ScaleSpaceProcess
from ..process.solver import earlier_timesteps, extrapolate
from .gaussian_data import posterior_mean_matrix, residual_covariance
from .missing_covariance import missing_covariance

RESIDUALS = ("none", "null", "row", "change", "within", "all")


@dataclass(frozen=True)
class Sampler:
    """How a chain is sampled.

    Attributes
    ----------
    eta : float
        In [0, 1].
    solver_order : {1, 2}
    residual : {"none", "null", "row", "change", "within", "all"}
        Where the prediction gets noise with the covariance of what the network does not know: nowhere; at level
        changes in the null space of D, in its row space, or in both; within levels; everywhere, which samples exactly.
    model : callable, optional
        Covariance (n, n) and size -> a simpler one, of `covariance_models`, in its place. Default: as it is.
    covariance : {"exact", "isotropic"}
        Of every step, as in `ScaleSpaceProcess.posterior`.
    """

    eta: float = 1.0
    solver_order: int = 1
    residual: str = "none"
    model: Callable[[torch.Tensor, Size], torch.Tensor] | None = None
    covariance: str = "exact"

    def __post_init__(self) -> None:
        if self.residual not in RESIDUALS:
            raise ValueError(f"residual must be one of {', '.join(RESIDUALS)}, got {self.residual!r}.")


def reverse_chain_covariance(
    process: ScaleSpaceProcess,
    data_covariance: torch.Tensor,
    timesteps: Sequence[int],
    sampler: Sampler,
    after_step: Callable[[], object] | None = None,
) -> torch.Tensor:
    """Covariance of the images that the sampler makes with the perfect network, from x_t ~ N(0, I). Ours.

    Parameters
    ----------
    process : ScaleSpaceProcess
    data_covariance : torch.Tensor
        C, shape (D, D), float64.
    timesteps : sequence of int
        Strictly descending, in 0..T-1; the step from the last one to s = -1 is added.
    sampler : Sampler
    after_step : callable, optional
        Called after every step, for progress bars.

    Returns
    -------
    torch.Tensor
        Shape (D, D), float64.

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> scheduler = SSDScheduler(sample_size=8, num_levels=2)
    >>> scheduler.set_timesteps(10)
    >>> from ssd.analysis.gaussian_data import power_law_covariance
    >>> data = power_law_covariance((8, 8))
    >>> reverse_chain_covariance(scheduler.process, data, scheduler.timesteps.tolist(), Sampler(eta=1.0)).shape
    torch.Size([64, 64])
    """
    pixels = math.prod(process.size(-1))
    if tuple(data_covariance.shape) != (pixels, pixels):
        height, width = process.size(-1)
        raise ValueError(
            f"The covariance of {height} x {width} images must be ({pixels}, {pixels}), "
            f"got {tuple(data_covariance.shape)}."
        )
    chain = _Chain(process, data_covariance, timesteps, sampler)
    for t, s in zip(timesteps, [*timesteps[1:], -1]):
        chain.step(t, s)
        if after_step is not None:
            after_step()
    return chain.covariance


def chain_distance(
    process: ScaleSpaceProcess,
    data_covariance: torch.Tensor,
    timesteps: Sequence[int],
    sampler: Sampler,
    after_step: Callable[[], object] | None = None,
) -> float:
    """Squared Frechet distance between the data N(0, C) and the result of `reverse_chain_covariance`."""
    result = reverse_chain_covariance(process, data_covariance, timesteps, sampler, after_step)
    mean = np.zeros(len(result))
    return frechet_distance(mean, data_covariance.numpy(), mean, result.numpy())


@dataclass
class _Chain:
    """The covariance of x_t and of the predictions that later steps use, in this order."""

    process: ScaleSpaceProcess
    data_covariance: torch.Tensor
    timesteps: Sequence[int]
    sampler: Sampler
    covariance: torch.Tensor = field(init=False)
    kept: dict[int, int] = field(init=False, default_factory=dict)
    """Timestep of a prediction -> its number of pixels, in the order of the blocks after x_t."""

    def __post_init__(self) -> None:
        self.covariance = torch.eye(math.prod(self.process.size(self.timesteps[0])), dtype=torch.float64)
        second = self.sampler.solver_order == 2
        self.earlier = earlier_timesteps(self.process, self.timesteps) if second else {}

    def step(self, t: int, s: int) -> None:
        """From x_t to x_s."""
        process, basis = self.process, torch.eye(len(self.covariance), dtype=torch.float64)
        state, *others = basis.split([math.prod(process.size(t)), *self.kept.values()], dim=1)
        predictions = dict(zip(self.kept, others))
        prediction = state @ posterior_mean_matrix(process, self.data_covariance, s, t)  # (m, n_s)
        x_tilde, x_t = self._images(prediction, s), self._images(state, t)
        u = self.earlier.get(t)
        if u is not None:
            x_tilde = extrapolate(process, x_tilde, self._images(predictions[u], t), u, t, s)
        posterior = process.posterior(x_tilde, x_t, s, t, self.sampler.eta, self.sampler.covariance)

        used = {u for later, u in self.earlier.items() if later < t}
        predictions = {u: value for u, value in {**predictions, t: prediction}.items() if u in used}
        step = torch.cat([posterior.mean.flatten(1), *predictions.values()], dim=1)
        n_s = math.prod(process.size(s))
        self.kept = {u: value.shape[1] for u, value in predictions.items()}
        self.covariance = step.T @ self.covariance @ step
        self.covariance[:n_s, :n_s] += posterior.covariance.to_dense() + self._residual_noise(s, t)

    def _residual_noise(self, s: int, t: int) -> torch.Tensor | float:
        """The covariance that noise on the prediction adds to x_s."""
        residual = self._residual(s, t)
        return 0.0 if residual is None else missing_covariance(self.process, residual, s, t, self.sampler.eta)

    def _residual(self, s: int, t: int) -> torch.Tensor | None:
        """The covariance of the noise on the prediction."""
        kind, changes = self.sampler.residual, self.process.level(s) != self.process.level(t)
        if kind == "none" or ((kind == "within") == changes and kind != "all"):
            return None
        residual = residual_covariance(self.process, self.data_covariance, s, t)
        if self.sampler.model is not None:
            residual = self.sampler.model(residual, self.process.size(s))
        if kind in ("null", "row"):
            rows = self.process.operator(s, t).spectral.covariance(lambda lam: (lam > 0).double()).to_dense()
            chosen = rows if kind == "row" else torch.eye(len(rows), dtype=torch.float64) - rows
            residual = chosen @ residual @ chosen
        return residual

    def _images(self, rows: torch.Tensor, t: int) -> torch.Tensor:
        return rows.reshape(-1, 1, *self.process.size(t))
