"""Blurring diffusion as published (arXiv:2209.05557): every cosine frequency of the image fades at a pace of its own.

    u = C x,    u_t = alpha_t * u_0 + sigma_t * C epsilon,    alpha_t = a_t g_t          marginal, elementwise
    g_t = d + (1 - d) exp(-lambda tau_t),   tau_t = sigma_B(t)^2 / 2,   sigma_B(t) = sigma_max sin^2(pi t / 2)

with the orthonormal cosine transform C, lambda the squared frequency, and a floor d that keeps every frequency alive.
So each step adds noise of a variance per frequency, sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2, and x_s | x_t, x_0 is
theorem 2 of arXiv:2603.08709 in the cosine basis.

Published, sigma_t is one number for all frequencies. With `noise="variance_preserving"` it is sqrt(1 - alpha_t^2), so
that the marginals are anisotropic, too (the blur diffusion of arXiv:2207.11192).

Shape letters: B batch, C channels, H W the image's size.
"""

from __future__ import annotations

import math

import torch

from ..operators.cosine_filter import CosineFilter, cosine_basis, squared_frequencies
from ..operators.placing import like
from ..operators.sizes import Size
from .diffusion import DiffusionProcess, Timestep
from .noise import NoiseSchedule, cosine_log_snr
from .posterior import GaussianPosterior, diagonal_posterior
from .resolution import ResolutionSchedule

NOISES = ("isotropic", "variance_preserving")


class BlurringProcess(DiffusionProcess):
    """Blur and noise together, at one resolution.

    Parameters
    ----------
    size : (height, width)
    num_timesteps : int
        T. Timestep t stands for the time (t + 1) / T of the published process.
    blur_sigma_max : float
        sigma_max, the width of the blur at the end in pixels, >= 0; 20 in the paper for images of 64 pixels and more.
    min_gain : float
        d, in (0, 1]; 0.001 in the paper.
    noise : {"isotropic", "variance_preserving"}
        One sigma_t for all frequencies, as published, or one for each.

    Examples
    --------
    >>> process = BlurringProcess((8, 8), num_timesteps=100)
    >>> process.marginal_sample(torch.ones(1, 1, 8, 8), 50, torch.zeros(1, 1, 8, 8)).shape
    torch.Size([1, 1, 8, 8])
    """

    def __init__(
        self,
        size: Size,
        num_timesteps: int = 1000,
        blur_sigma_max: float = 20.0,
        min_gain: float = 0.001,
        noise: str = "isotropic",
    ) -> None:
        if noise not in NOISES:
            raise ValueError(f"noise must be one of {', '.join(NOISES)}, got {noise!r}.")
        if blur_sigma_max < 0 or not 0 < min_gain <= 1:
            raise ValueError(
                f"blur_sigma_max must be at least 0 and min_gain in (0, 1], got {blur_sigma_max} and {min_gain}."
            )
        schedule = NoiseSchedule.from_log_snr(cosine_log_snr(num_timesteps))
        super().__init__(schedule, ResolutionSchedule((size,), (0,) * num_timesteps))
        time = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
        widths = blur_sigma_max * torch.sin(math.pi / 2 * time).square()
        self._heat = torch.cat(
            [widths.square() / 2, torch.zeros(1, dtype=torch.float64)]
        )  # tau_t, the clean image last
        self._min_gain, self._isotropic = min_gain, noise == "isotropic"
        self._frequencies, self._basis = squared_frequencies(size), cosine_basis(size)
        self._check_transitions()

    def gain(self, t: Timestep) -> torch.Tensor:
        """g_t, float64: (H, W), or (B, 1, H, W) on the CPU for per-image timesteps; 1 for the clean image."""
        return self._gain(t, self._frequencies)

    def variance(self, t: Timestep) -> torch.Tensor:
        """sigma_t^2 of every frequency, float64, of the shape of `gain`."""
        return self._variance(t, self._frequencies)

    def operator(self, s: Timestep, t: Timestep) -> CosineFilter:
        """D_st, the filter with the gains g_t / g_s, s <= t (without the factor a_t / a_s)."""
        return CosineFilter(self._basis, self.gain(t) / self.gain(s))

    def target(self, x_0: torch.Tensor, t: Timestep) -> torch.Tensor:
        """The clean image itself."""
        return x_0

    def reverse(
        self, clean: torch.Tensor, x_t: torch.Tensor, s: Timestep, t: Timestep, eta: float = 1.0
    ) -> GaussianPosterior:
        """Theorem 2 in the cosine basis, the published step; eta must be 1."""
        self.check_eta(eta)
        mu_s = like(self.signal(s), x_t) * self.degrade(clean, s)
        s, t = self._checked(s), self._checked(t)
        c = self.signal(t) / self.signal(s)
        return diagonal_posterior(self.operator(s, t), c, mu_s, x_t, self.variance(s), self.variance(t))

    def check_eta(self, eta: float) -> None:
        if eta != 1:
            raise ValueError(f"Blurring diffusion has ancestral steps alone: eta must be 1, got {eta}.")

    def network_target(
        self, prediction_type: str, x_0: torch.Tensor, x_t: torch.Tensor, t: Timestep, noise: torch.Tensor
    ) -> torch.Tensor:
        """The clean image, or the white noise in x_t; the velocity is not defined here."""
        return noise if _checked_type(prediction_type) == "epsilon" else x_0

    def clean_image(
        self, prediction_type: str, prediction: torch.Tensor, x_t: torch.Tensor, t: Timestep, s: Timestep
    ) -> torch.Tensor:
        """The clean image that a prediction stands for; from noise, its high frequencies are amplified up to 1 / d."""
        if _checked_type(prediction_type) == "sample":
            return prediction
        signal = self._basis.apply_transposed(x_t - self.coloured(prediction, t))
        return self._basis.apply(signal / like(self.signal(self._checked(t)) * self.gain(t), x_t))

    def coloured(self, noise: torch.Tensor, t: Timestep) -> torch.Tensor:
        """White noise with the variances sigma_t^2 of the frequencies of x_t."""
        if self._isotropic:
            return super().coloured(noise, t)
        return CosineFilter(self._basis, self.variance(t).sqrt()).forward(noise)

    def _gain(self, t: Timestep, frequencies: torch.Tensor) -> torch.Tensor:
        t = self._checked(t)
        heat = self._heat[t] if isinstance(t, int) else self._heat[t].view(-1, 1, 1, 1)
        return self._min_gain + (1 - self._min_gain) * torch.exp(-frequencies * heat)

    def _variance(self, t: Timestep, frequencies: torch.Tensor) -> torch.Tensor:
        t = self._checked(t)
        gain = self._gain(t, frequencies)
        sigma, signal = self.sigma(t).square(), self.signal(t).square()
        # 1 - (a g)^2 without cancellation
        return sigma.expand_as(gain) if self._isotropic else sigma + signal * (1 - gain) * (1 + gain)

    def _check_transitions(self) -> None:
        """Theorem 1: sigma_t^2 >= (alpha_t / alpha_s)^2 sigma_s^2 for every frequency, checked for all s = t - 1.

        Gains depend on the squared frequency alone, so a line through its range is enough.
        """
        line = torch.linspace(0, float(self._frequencies.max()), 64, dtype=torch.float64)
        for t in range(self.num_timesteps):
            ratio = self.signal(t) * self._gain(t, line) / (self.signal(t - 1) * self._gain(t - 1, line))
            excess = ratio.square() * self._variance(t - 1, line) - self._variance(t, line)
            if bool((excess > 0).any()):
                worst = float(line[excess.argmax()])
                raise ValueError(
                    f"Timestep {t} is not a diffusion step: at the squared frequency {worst:.4g} the transition's "
                    f"variance would be {-float(excess.max()):.4g}. Use more timesteps."
                )


def _checked_type(prediction_type: str) -> str:
    if prediction_type not in ("sample", "epsilon"):
        raise ValueError(
            f"Blurring diffusion predicts epsilon, as published, or sample, got {prediction_type!r}: choose one."
        )
    return prediction_type
