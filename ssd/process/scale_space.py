"""The scale-space process: marginal, transition and posterior, all in closed form.

Shape letters: B batch, C channels; H W the size of x_s, h w the size of x_t, s < t.

    x_t | x_0 ~ N(a_t D_t x_0, sigma_t^2 I)                                       marginal
    x_t | x_s ~ N(M x_s, sigma_t^2 I - sigma_s^2 M M^T),   M = (a_t / a_s) D_st   theorem 1, transition
    x_s | x_t, x_0: theorem 3, and the eta-family around it                       posterior

Equations: arXiv:2603.08709, in the notation of docs/maths.md. The eta-family is ours.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch

from ..operators.blur import Blur
from ..operators.linear import IdentityOperator, LinearOperator
from ..operators.placing import like
from ..operators.resize import resize_operator, scaled
from ..operators.sizes import Size
from .diffusion import DiffusionProcess, Timestep
from .noise import NoiseSchedule
from .posterior import GaussianPosterior, eta_posterior
from .preconditioning import DataMoments, input_scale, linear_error, linear_estimate
from .predictions import Conversion
from .resolution import ResolutionSchedule

COVARIANCES = ("exact", "isotropic")

LARGEST_GAIN = 2.0
"""Of a level: with more, downsampling by two would amplify, and theorem 1 fails."""

MAX_CACHED_OPERATORS = 256
"""With blur every pair of timesteps has its own operator. Without, every pair of levels: four per level are kept."""


class ScaleSpaceProcess(DiffusionProcess):
    """Noise grows and resolution shrinks with t = -1 (the clean image), 0, .., T-1.

    Members of the family: one level is DDPM; one level with blur is blurring diffusion with isotropic marginals;
    several levels are SSD, with blur or without.

    Parameters
    ----------
    noise : NoiseSchedule
        a_t and sigma_t.
    resolution : ResolutionSchedule
        The level of every timestep.
    downsample : str or callable
        The operator between neighbouring levels: a kernel, one of `ssd.operators.kernels.KERNELS`, or a function
        (fine size, coarse size) -> LinearOperator.
    blur_widths : torch.Tensor, optional
        Width of the accumulated Gaussian blur at t = 0, .., T-1 and, last, of the clean image (0), in pixels of the
        full resolution: shape (T + 1,), never decreasing with t. Default: no blur.
    level_gain : float
        In 1..2, a factor of every operator between neighbouring levels. 1 is the paper's process. 2 makes halving an
        orthonormal projection, or nearly: a coarse state then knows as much of its image as a fine one, and the
        effective log-SNR (`ssd.process.log_snr`) has no jump at level changes. D_t x_0 is larger than the image by
        `image_scale`; networks predict the image. Ours.
    moments : DataMoments, optional
        Of the data, for preconditioned predictions.
    handover_snr : float
        kappa of preconditioned predictions, at least 0 (`ssd.process.preconditioning`).

    Raises
    ------
    ValueError
        When the schedules disagree on T, or when theorem 1 gives no covariance for some timestep.

    Examples
    --------
    >>> from ssd.process.noise import make_betas
    >>> from ssd.process.resolution import pyramid
    >>> process = ScaleSpaceProcess(
    ...     NoiseSchedule.from_betas(make_betas()), ResolutionSchedule.from_curve(pyramid(32, 3), 1000)
    ... )
    >>> process.size(999), process.degrade(torch.zeros(1, 3, 32, 32), 999).shape
    ((8, 8), torch.Size([1, 3, 8, 8]))
    """

    def __init__(
        self,
        noise: NoiseSchedule,
        resolution: ResolutionSchedule,
        downsample: str | Callable[[Size, Size], LinearOperator] = "bilinear",
        blur_widths: torch.Tensor | None = None,
        level_gain: float = 1.0,
        moments: DataMoments | None = None,
        handover_snr: float = 0.0,
    ) -> None:
        super().__init__(noise, resolution)
        if not handover_snr >= 0:
            raise ValueError(f"handover_snr must be at least 0, got {handover_snr}.")
        self.moments, self.handover_snr = moments, handover_snr
        if not 1 <= level_gain <= LARGEST_GAIN:
            raise ValueError(f"level_gain must be in 1..{LARGEST_GAIN:g}, got {level_gain}.")
        self.level_gain = level_gain
        make = partial(resize_operator, kernel=downsample) if isinstance(downsample, str) else downsample
        self._steps = [scaled(make(fine, coarse), level_gain) for fine, coarse in pairwise(resolution.resolutions)]
        self._heat = None if blur_widths is None else _accumulated_heat(blur_widths, noise.num_timesteps)
        self._operators: dict[tuple[int, int], LinearOperator] = {}
        self._most_operators = max(MAX_CACHED_OPERATORS, 4 * len(resolution.resolutions))
        self._check_transitions()

    def with_switches(self, switches: Sequence[int]) -> ScaleSpaceProcess:
        """The same process with other first timesteps of the coarser levels; it shares the operators between levels.

        Theorem 1 is not checked again: `check_bands` does that once for many switches.
        """
        other = copy.copy(self)
        other.resolution = ResolutionSchedule.from_switches(
            self.resolution.resolutions, self.num_timesteps, list(switches)
        )
        if self._heat is not None:  # with blur an operator depends on where the levels change
            other._operators = {}
        return other

    def check_bands(self, bands: Sequence[range]) -> None:
        """Theorem 1 for all switches at once: the change to level j + 1 may be at any timestep of bands[j].

        Blur has no gain, so that the downsampling is looked at without it.

        Raises
        ------
        ValueError
            When it gives no covariance for some timestep.
        """
        for step, band in zip(self._steps, bands):
            for t in band:
                self._check_transition(t, step)

    def operator(self, s: Timestep, t: Timestep) -> LinearOperator:
        """D_st, the degradation from x_s to x_t (without the factor a_t / a_s), s <= t."""
        s, t = self._checked(s), self._checked(t)
        fine, coarse = self.level(s), self.level(t)
        if fine > coarse:
            raise ValueError(f"operator(s, t) needs s <= t, got s={s}, t={t}.")
        if self._heat is None:
            return self._cached((fine, coarse), lambda: self._resize(fine, coarse))
        if isinstance(s, int) and isinstance(t, int):
            return self._cached((s, t), lambda: self._blur_and_resize(s, t, fine, coarse))
        return self._blur_and_resize(s, t, fine, coarse)

    def degrade(self, x_0: torch.Tensor, t: Timestep) -> torch.Tensor:
        """D_t x_0; `x_0` may also be the image of a coarser level, of its size, such as `target` gives it.

        A picture that has no finer details can so enter at its level: D_t x_0 is the same for all images x_0 of full
        resolution of which it is the image there. Only coarser levels can be reached.
        """
        level = self.resolution.level_of_size((x_0.shape[-2], x_0.shape[-1]))
        start = self.resolution.level_starts[level]
        degraded = self.operator(start, t).forward(x_0)
        return degraded if self.level_gain == 1 else self.image_scale(start) * degraded

    def image_scale(self, t: Timestep) -> float:
        """level_gain to the power of the level."""
        return self.level_gain ** self.level(t)

    def target(self, x_0: torch.Tensor, t: Timestep) -> torch.Tensor:
        """The clean image at the next resolution, that of s = t - 1, at its sharpest.

        Without blur it is D_s x_0, as in the paper. With blur it is the image as it enters the level, so that any
        later D_s x_0 of this level follows from it (`from_target`), whatever the number of sampling steps. With a
        `level_gain` it is the image, of the usual range, rather than D_s x_0.
        """
        start = self.resolution.level_starts[self.level(self._checked(t) - 1)]
        sharpest = self.degrade(x_0, start)
        return sharpest if self.level_gain == 1 else sharpest / self.image_scale(start)

    def from_target(self, target: torch.Tensor, s: Timestep) -> torch.Tensor:
        """D_s x_0 from the network's image of the level of s: the blur within the level, and the level's scale."""
        blurred = self.operator(self.resolution.level_starts[self.level(s)], s).forward(target)
        return blurred if self.level_gain == 1 else self.image_scale(s) * blurred

    def network_input(self, prediction_type: str, x_t: torch.Tensor, t: Timestep) -> torch.Tensor:
        """x_t, or c_in (x_t - a_t D_t m) where the prediction is preconditioned (`ssd.process.preconditioning`)."""
        if prediction_type != "preconditioned":
            return x_t
        rho = self._variance(t) * self.image_scale(t) ** 2
        return like(input_scale(rho, self.signal(t), self.sigma(t)), x_t) * self._about_the_mean(x_t, t)

    def conversion(self, prediction_type: str, x_t: torch.Tensor, t: Timestep, s: Timestep) -> Conversion:
        if prediction_type != "preconditioned":
            return super().conversion(prediction_type, x_t, t, s)
        through, kappa = self._seen_through(t, s, self._variance(s)), self.handover_snr
        estimate = linear_estimate(*through, self._about_the_mean(x_t, t), kappa)
        return Conversion(self._mean_like(x_t) + estimate, like(linear_error(*through, kappa).sqrt(), x_t))

    def output_scale(self, prediction_type: str, t: Timestep, s: Timestep) -> torch.Tensor:
        if prediction_type != "preconditioned":
            return super().output_scale(prediction_type, t, s)
        return linear_error(*self._seen_through(t, s, self._variance(s)), self.handover_snr).sqrt()

    def linear_error(self, t: Timestep, s: Timestep, rho: torch.Tensor) -> torch.Tensor:
        """The mean squared error of the best linear estimate of what the network predicts: () or (B, 1, 1, 1).

        Parameters
        ----------
        t, s : int or torch.Tensor
        rho : torch.Tensor
            The variance of the images that are predicted, (); the result has its dtype and device.
        """
        operator, rho, a, sigma = self._seen_through(t, s, rho)
        return linear_error(operator, rho, like(a, rho), like(sigma, rho))

    @property
    def _moments(self) -> DataMoments:
        if self.moments is None:
            raise ValueError(
                "A preconditioned prediction needs the moments of the data: SSDScheduler(data_moments=..), which "
                "train_ssd.py measures when a run begins."
            )
        return self.moments

    def _variance(self, s: Timestep) -> torch.Tensor:
        """rho, of the images of the level of s, ()."""
        return torch.tensor(self._moments.variances[self.level(s)], dtype=torch.float64)

    def _seen_through(
        self, t: Timestep, s: Timestep, rho: torch.Tensor
    ) -> tuple[LinearOperator, torch.Tensor, torch.Tensor, torch.Tensor]:
        """How x_t shows the image that the network predicts: D, the variance of the image, a and sigma."""
        operator = self.operator(self.resolution.level_starts[self.level(s)], t)
        return operator, rho, self.signal(t) * self.image_scale(s), self.sigma(t)

    def _about_the_mean(self, x_t: torch.Tensor, t: Timestep) -> torch.Tensor:
        """x_t - a_t D_t m: downsampling and blur keep the mean."""
        return x_t - like(self.signal(t) * self.image_scale(t), x_t) * self._mean_like(x_t)

    def _mean_like(self, x: torch.Tensor) -> torch.Tensor:
        """m, (C, 1, 1), for images (.., C, h, w).

        Raises
        ------
        ValueError
            For images of another number of channels.
        """
        if len(self._moments.mean) != x.shape[-3]:
            raise ValueError(
                f"The data_moments are of {len(self._moments.mean)} channels, got images of {x.shape[-3]}: "
                "ssd.analysis.moments.data_moments measures those of your images."
            )
        return like(torch.tensor(self._moments.mean, dtype=torch.float64).view(-1, 1, 1), x)

    def posterior(
        self,
        x_0_at_s: torch.Tensor,
        x_t: torch.Tensor,
        s: Timestep,
        t: Timestep,
        eta: float = 1.0,
        covariance: str = "exact",
    ) -> GaussianPosterior:
        """x_s | x_t, x_0 for s < t: theorem 3 and its eta-family, see `eta_posterior`.

        Parameters
        ----------
        x_0_at_s : torch.Tensor
            D_s x_0, or its prediction, shape (B, C, H, W).
        x_t : torch.Tensor
            Shape (B, C, h, w).
        s, t : int or torch.Tensor
            One of each, or (B,); s = -1 is the clean image: the result is then x_0_at_s itself.
        eta : float
            In [0, 1]. 1 is the exact posterior (DDPM's in one level); 0 is deterministic wherever x_t holds
            information (DDIM's step in one level). Every eta keeps the marginal of x_s.
        covariance : {"exact", "isotropic"}
            isotropic replaces the covariance by white noise of the same total variance. It is the paper's ablation,
            for study: at a level change it does not keep the marginal of x_s.
        """
        if covariance not in COVARIANCES:
            raise ValueError(f"covariance must be one of {', '.join(COVARIANCES)}, got {covariance!r}.")
        s, t = self._checked(s), self._checked(t)
        mu_s = like(self.signal(s), x_t) * x_0_at_s
        c = self.signal(t) / self.signal(s)
        exact = eta_posterior(self.operator(s, t), c, mu_s, x_t, self.sigma(s), self.sigma(t), eta)
        return exact if covariance == "exact" else exact.isotropic()

    def reverse(
        self,
        clean: torch.Tensor,
        x_t: torch.Tensor,
        s: Timestep,
        t: Timestep,
        eta: float = 1.0,
    ) -> GaussianPosterior:
        """`posterior`, after the prediction was blurred to D_s x_0."""
        return self.posterior(self.from_target(clean, s), x_t, s, t, eta)

    def _cached(self, key: tuple[int, int], make: Callable[[], LinearOperator]) -> LinearOperator:
        if key not in self._operators:
            if len(self._operators) >= self._most_operators:
                del self._operators[next(iter(self._operators))]  # the oldest
            self._operators[key] = make()
        return self._operators[key]

    def _resize(self, fine: int, coarse: int) -> LinearOperator:
        """From level `fine` to level `coarse`, without blur."""
        operator: LinearOperator = IdentityOperator(self.resolution.resolutions[fine])
        for step in self._steps[fine:coarse]:
            operator = step.compose(operator)
        return operator

    def _blur_and_resize(self, s: Timestep, t: Timestep, fine: int, coarse: int) -> LinearOperator:
        """Blur up to the end of each level, resize, and blur on to t: D_st D_rs = D_rt by construction."""
        operator: LinearOperator = IdentityOperator(self.resolution.resolutions[fine])
        now = s
        for level in range(fine, coarse):
            start = self.resolution.level_starts[level + 1]
            operator = self._steps[level].compose(self._blur(level, now, start).compose(operator))
            now = start
        return self._blur(coarse, now, t).compose(operator)

    def _blur(self, level: int, s: Timestep, t: Timestep) -> LinearOperator:
        """The blur between two timesteps, at the size of `level`, whose pixels are wider than those of level 0."""
        assert self._heat is not None
        heat = self._heat[t] - self._heat[s]
        size, full = self.resolution.resolutions[level], self.resolution.resolutions[0]
        if not bool(heat.any()):
            return IdentityOperator(size)
        return Blur(size, torch.sqrt(2 * heat) * math.sqrt(math.prod(size) / math.prod(full)))

    def _check_transitions(self) -> None:
        """Theorem 1 gives a covariance only if sigma_t^2 >= sigma_s^2 lambda_max(M M^T).

        Checked for all s = t - 1; for any other pair it follows, since the covariance of several steps is a sum of
        theirs, each one mapped on by a linear operator.
        """
        for t in range(self.num_timesteps):
            changes = t in self.resolution.level_changes  # elsewhere D is the identity or a blur, of gain 1
            self._check_transition(t, self.operator(t - 1, t) if changes else IdentityOperator(self.size(t)))

    def _check_transition(self, t: int, operator: LinearOperator) -> None:
        allowed = float(self.sigma(t) / (self.sigma(t - 1) * self.signal(t) / self.signal(t - 1)).clamp(min=1e-300))
        gain = operator.gain_bound()
        if gain > allowed:
            gain = operator.spectral.largest_singular_value()
        if gain > allowed:
            raise ValueError(
                f"Timestep {t} is not a diffusion step: with {operator!r} of gain {gain:.4g}, "
                f"sigma_t^2 = {float(self.sigma(t) ** 2):.6g} is below sigma_s^2 lambda_max(M M^T) = "
                f"{float(self.sigma(t) ** 2) * (gain / allowed) ** 2:.6g} (s = {t - 1}). Use an operator with less "
                "gain, or change level at another timestep."
            )


def _accumulated_heat(blur_widths: torch.Tensor, num_timesteps: int) -> torch.Tensor:
    """sigma_B^2 / 2 at every timestep, the clean image's last; float64."""
    widths = blur_widths.to(torch.float64)
    if widths.shape != (num_timesteps + 1,) or widths[-1] != 0 or bool((widths[:-1].diff() < 0).any()):
        raise ValueError(
            f"blur_widths must have shape ({num_timesteps + 1},), be 0 at the end (the clean image) and never decrease "
            f"before, got shape {tuple(widths.shape)}."
        )
    return widths.square() / 2
