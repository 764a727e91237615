"""The scale-space process: marginal, transition and posterior, all in closed form.

Shape letters: B batch, C channels; H W the size of x_s, h w the size of x_t, s < t.

    x_t | x_0 ~ N(a_t D_t x_0, sigma_t^2 I)                                       marginal
    x_t | x_s ~ N(M x_s, sigma_t^2 I - sigma_s^2 M M^T),   M = (a_t / a_s) D_st   theorem 1, transition
    x_s | x_t, x_0: theorem 3, and the eta-family around it                       posterior

Equations: arXiv:2603.08709, in the notation of docs/maths.md. The eta-family is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers.utils.torch_utils import randn_tensor

from .noise_schedule import NoiseSchedule
from .operators import AxisMatrices, IdentityOperator, LinearOperator, resize_operator
from .resolution_schedule import ResolutionSchedule, Size

Timestep = int | torch.Tensor
"""One timestep, or per-image timesteps of shape (B,) that all live on one level."""


@dataclass(frozen=True)
class SpectralCovariance:
    """V diag(v) V^T + null_variance (I - V V^T): a covariance known in closed form.

    Attributes
    ----------
    basis : AxisMatrices
        V, orthonormal columns, (r_h, r_w) -> (H, W).
    variances : torch.Tensor
        v_ij >= 0, shape (r_h, r_w), or (B, 1, r_h, r_w) for per-image timesteps; float64.
    null_variance : torch.Tensor
        The variance of the orthogonal complement, shape () or (B, 1, 1, 1); float64.
    size : (height, width)
        Of the images that it describes.
    is_zero : bool
        Whether it vanishes, so that sampling needs no noise.
    """

    basis: AxisMatrices
    variances: torch.Tensor
    null_variance: torch.Tensor
    size: Size
    is_zero: bool

    def _rescale(self, x: torch.Tensor, power: float) -> torch.Tensor:
        """cov^power x: rescale the whole by the null space's factor, then correct inside the row space."""
        outside = self.null_variance**power
        inside = (self.variances**power - outside).to(x)
        return outside.to(x) * x + self.basis.apply(inside * self.basis.apply_transposed(x))

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """cov x for images x (..., H, W)."""
        return self._rescale(x, 1.0)

    def sqrt_apply(self, noise: torch.Tensor) -> torch.Tensor:
        """cov^{1/2} noise with the symmetric root: white noise (..., H, W) -> noise of this covariance.

        The symmetric root does not depend on the signs and order of singular vectors, so the same noise
        gives the same image on every machine.
        """
        return self._rescale(noise, 0.5)

    def to_dense(self) -> torch.Tensor:
        """The covariance matrix of flattened images, shape (H W, H W), float64. One timestep only."""
        height, width = self.size
        identity = torch.eye(height * width, dtype=torch.float64).view(-1, height, width)
        return self.apply(identity).flatten(1)


@dataclass(frozen=True)
class GaussianPosterior:
    """The Gaussian x_s | x_t, x_0.

    Attributes
    ----------
    mean : torch.Tensor
        Shape (B, C, H, W), in the dtype of x_t.
    covariance : SpectralCovariance
        Of every channel; channels are independent.
    """

    mean: torch.Tensor
    covariance: SpectralCovariance

    def sample(self, generator: torch.Generator | list[torch.Generator] | None = None) -> torch.Tensor:
        """Draw x_s: shape (B, C, H, W). A list of generators gives every image its own."""
        if self.covariance.is_zero:
            return self.mean
        noise = randn_tensor(
            tuple(self.mean.shape), generator=generator, device=self.mean.device, dtype=self.mean.dtype
        )
        return self.mean + self.covariance.sqrt_apply(noise)


class ScaleSpaceProcess:
    """Noise grows and resolution shrinks with t = -1 (the clean image), 0, .., T-1.

    Parameters
    ----------
    noise : NoiseSchedule
        a_t and sigma_t.
    resolution : ResolutionSchedule
        The level of every timestep.
    kernel : str
        Downsampling kernel between neighbouring levels, one of `ssd.operators.KERNELS`.

    Raises
    ------
    ValueError
        When the schedules disagree on T, or when theorem 1 gives no covariance for a level change.

    Examples
    --------
    >>> from ssd.noise_schedule import make_betas
    >>> from ssd.resolution_schedule import pyramid
    >>> process = ScaleSpaceProcess(
    ...     NoiseSchedule.from_betas(make_betas()), ResolutionSchedule.from_curve(pyramid(32, 3), 1000)
    ... )
    >>> process.size(999), process.degrade(torch.zeros(1, 3, 32, 32), 999).shape
    ((8, 8), torch.Size([1, 3, 8, 8]))
    """

    def __init__(self, noise: NoiseSchedule, resolution: ResolutionSchedule, kernel: str = "bilinear") -> None:
        if noise.num_timesteps != len(resolution.levels):
            raise ValueError(
                f"The noise schedule has {noise.num_timesteps} timesteps, "
                f"the resolution schedule {len(resolution.levels)}: they must be equal."
            )
        self.noise = noise
        self.resolution = resolution
        sizes = resolution.resolutions
        self._steps = [resize_operator(fine, coarse, kernel) for fine, coarse in pairwise(sizes)]
        self._between_levels: dict[tuple[int, int], LinearOperator] = {}
        for t in resolution.level_changes:
            self._check_transition(t - 1, t)

    @property
    def num_timesteps(self) -> int:
        """T, the number of noisy states."""
        return self.noise.num_timesteps

    def signal(self, t: Timestep) -> torch.Tensor:
        """a_t, float64: shape () for one timestep, (B, 1, 1, 1) for per-image timesteps."""
        return self._lookup(self.noise.signal, t)

    def sigma(self, t: Timestep) -> torch.Tensor:
        """sigma_t, float64: shape () for one timestep, (B, 1, 1, 1) for per-image timesteps."""
        return self._lookup(self.noise.sigma, t)

    def level(self, t: Timestep) -> int:
        """Level of timestep(s) t, 0 the finest. Per-image timesteps must share it."""
        if isinstance(t, int):
            return self.resolution.level(self._check_range(t))
        levels = {self.resolution.level(self._check_range(i)) for i in set(t.flatten().tolist())}
        if len(levels) != 1:
            raise ValueError(f"Per-image timesteps must live on one level, got levels {sorted(levels)}.")
        return levels.pop()

    def size(self, t: Timestep) -> Size:
        """(height, width) of x_t."""
        return self.resolution.resolutions[self.level(t)]

    def operator(self, s: Timestep, t: Timestep) -> LinearOperator:
        """D_st, the degradation from x_s to x_t (without the factor a_t / a_s), s <= t."""
        fine, coarse = self.level(s), self.level(t)
        if fine > coarse:
            raise ValueError(f"operator(s, t) needs s <= t, got s={s}, t={t}.")
        if (fine, coarse) not in self._between_levels:
            self._between_levels[fine, coarse] = self._compose_levels(fine, coarse)
        return self._between_levels[fine, coarse]

    def degrade(self, x_0: torch.Tensor, t: Timestep) -> torch.Tensor:
        """D_t x_0: (B, C, H, W) at full resolution -> (B, C, h, w) at the size of timestep t."""
        return self.operator(-1, t).forward(x_0)

    def marginal_sample(self, x_0: torch.Tensor, t: Timestep, noise: torch.Tensor) -> torch.Tensor:
        """x_t = a_t D_t x_0 + sigma_t noise, with white noise of shape (B, C, h, w)."""
        degraded = self.degrade(x_0, t)
        if noise.shape != degraded.shape:
            raise ValueError(f"noise must have the size of x_t, {tuple(degraded.shape)}, got {tuple(noise.shape)}.")
        return self.signal(t).to(degraded) * degraded + self.sigma(t).to(degraded) * noise

    def posterior(
        self, x_0_at_s: torch.Tensor, x_t: torch.Tensor, s: Timestep, t: Timestep, eta: float = 1.0
    ) -> GaussianPosterior:
        """x_s | x_t, x_0 (theorem 3) and its eta-family, for s < t.

            mean = mu_s + K (x_t - M mu_s),    cov = sigma_s^2 I - sigma_t^2 K K^T,    mu_s = a_s D_s x_0
            K = V diag(k) U^T,    k_i = sqrt(sigma_s^2 - v_i) / sigma_t
            v_i = eta^2 sigma_s^2 (1 - (sigma_s c lambda_i / sigma_t)^2) where lambda_i > 0, else sigma_s^2

        Parameters
        ----------
        x_0_at_s : torch.Tensor
            D_s x_0, or its prediction, shape (B, C, H, W).
        x_t : torch.Tensor
            Shape (B, C, h, w).
        s, t : int or tensor (B,)
            s = -1 is the clean image: the result is then x_0_at_s itself.
        eta : float
            In [0, 1]. 1 is the exact posterior (DDPM's in one level); 0 is deterministic wherever x_t holds
            information (DDIM's step in one level). Every eta keeps the marginal of x_s.
        """
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must be in [0, 1], got {eta}.")
        operator = self.operator(s, t)
        spectral = operator.spectral
        sigma_s, sigma_t = self.sigma(s), self.sigma(t)
        c = self.signal(t) / self.signal(s)
        lam = spectral.singular_values.to(sigma_s)

        exact = sigma_s**2 * (1 - (sigma_s * c * lam / sigma_t) ** 2)
        variances = torch.where(lam > 0, eta**2 * exact, sigma_s**2)
        gain = torch.sqrt(sigma_s**2 - variances) / sigma_t

        mu_s = self.signal(s).to(x_t) * x_0_at_s
        residual = x_t - c.to(x_t) * operator.forward(mu_s)
        mean = mu_s + spectral.v.apply(gain.to(x_t) * spectral.u.apply_transposed(residual))
        clean = isinstance(s, int) and s == -1
        return GaussianPosterior(
            mean,
            SpectralCovariance(
                basis=spectral.v,
                variances=variances,
                null_variance=sigma_s**2,
                size=operator.in_size,
                is_zero=clean or (eta == 0 and not spectral.has_null_space),
            ),
        )

    def _lookup(self, table: torch.Tensor, t: Timestep) -> torch.Tensor:
        if isinstance(t, int):
            return table[self._check_range(t)]
        return table.to(t.device)[t].view(-1, 1, 1, 1)

    def _check_range(self, t: int) -> int:
        if not -1 <= t < self.num_timesteps:
            raise ValueError(f"Timesteps lie in -1..{self.num_timesteps - 1} (-1 is the clean image), got {t}.")
        return t

    def _compose_levels(self, fine: int, coarse: int) -> LinearOperator:
        operator: LinearOperator = IdentityOperator(self.resolution.resolutions[fine])
        for step in self._steps[fine:coarse]:
            operator = step.compose(operator)
        return operator

    def _check_transition(self, s: int, t: int) -> None:
        """Theorem 1 gives a covariance only if sigma_t^2 >= sigma_s^2 lambda_max(M M^T)."""
        operator = self.operator(s, t)
        gain = float(self.signal(t) / self.signal(s) * operator.spectral.singular_values.max())
        if self.sigma(t) ** 2 < (self.sigma(s) * gain) ** 2:
            raise ValueError(
                f"Timestep {t} is no diffusion step: {operator!r} from timestep {s} has "
                f"sigma_t^2 = {float(self.sigma(t)) ** 2:.3e} < sigma_s^2 lambda_max(M M^T) = "
                f"{(float(self.sigma(s)) * gain) ** 2:.3e}. Use a kernel with less gain or change level later."
            )
