"""SSDScheduler: the scale-space process behind diffusers' scheduler interface.

Shape letters: B batch, C channels; H W the size of x_s, h w the size of x_t, s the timestep after t (s < t).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput, logging

from .operators.sizes import Size
from .process.noise import NoiseSchedule, make_betas, make_blur_widths
from .process.resolution import ResolutionSchedule, pyramid
from .process.scale_space import ScaleSpaceProcess

logger = logging.get_logger(__name__)

PREDICTION_TYPES = ("sample",)
MAX_TIMESTEPS = 100_000
MAX_SIDE = 4096
"""The most timesteps, and the largest side in pixels; more are taken for a mistake, since tables of them are built."""


@dataclass
class SSDSchedulerOutput(BaseOutput):
    """Result of `SSDScheduler.step`.

    Attributes
    ----------
    prev_sample : torch.Tensor
        x_s, shape (B, C, H, W).
    pred_original_sample : torch.Tensor
        The (clipped) prediction of the clean image at the size of x_s, D_s x_0, shape (B, C, H, W).
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


class SSDScheduler(SchedulerMixin, ConfigMixin):
    """Ancestral sampling of Scale Space Diffusion (arXiv:2603.08709, theorem 3).

    Timesteps t = T-1..0 are noisy states; -1 is the clean image. With `num_levels=1` it is DDPM with x_0
    prediction and the posterior variance.

    Parameters
    ----------
    num_train_timesteps : int
        T, the number of noisy states, at most 100000.
    beta_start, beta_end : float
        The first and the last beta, in (0, 1).
    beta_schedule : {"linear", "scaled_linear", "squaredcos_cap_v2"}
    sample_size : int or (height, width)
        The full resolution in pixels; each side at most 4096 and divisible by 2^(num_levels - 1).
    num_levels : int
        The number of resolutions.
    resolution_schedule : {"equal", "convex_decay", "sigmoid_like", "tanh_like"}
        See `ssd.process.resolution`.
    resolution_gamma : float
        The shape of the resolution schedule, positive.
    downsample_kernel : {"bilinear", "area", "bicubic", "lanczos3", "dct"}
        How images shrink; bilinear, antialiased, is the paper's.
    prediction_type : {"sample"}
        The network predicts the clean image at the next resolution, D_s x_0. Predicting the noise cannot work
        with several levels: where the image grows, x_t and its noise say nothing of the finer details.
    clip_sample : bool
        Whether to clip the prediction to [-clip_sample_range, clip_sample_range].
    clip_sample_range : float
        The largest absolute value that is left, positive.
    blur_sigma_max : float
        The width, in pixels of the full resolution, of the Gaussian blur that has accumulated at t = T-1; 0 is no blur.
        With `num_levels=1` it gives blurring diffusion with isotropic marginals.

    Examples
    --------
    >>> scheduler = SSDScheduler(sample_size=32, num_levels=3)
    >>> scheduler.set_timesteps(50)
    >>> len(scheduler.timesteps), scheduler.size_at(999), scheduler.size_at(0)
    (50, (8, 8), (32, 32))
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        sample_size: int | tuple[int, int] = 64,
        num_levels: int = 4,
        resolution_schedule: str = "convex_decay",
        resolution_gamma: float = 0.5,
        downsample_kernel: str = "bilinear",
        prediction_type: str = "sample",
        clip_sample: bool = True,
        clip_sample_range: float = 1.0,
        blur_sigma_max: float = 0.0,
    ) -> None:
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type must be 'sample', got {prediction_type!r}: across a level change the noise "
                "does not determine the clean image, so the network has to predict the image itself."
            )
        if num_train_timesteps > MAX_TIMESTEPS:
            raise ValueError(f"num_train_timesteps must be at most {MAX_TIMESTEPS}, got {num_train_timesteps}.")
        if max([sample_size] if isinstance(sample_size, int) else sample_size) > MAX_SIDE:
            raise ValueError(f"sample_size must be at most {MAX_SIDE} pixels a side, got {sample_size}.")
        if not clip_sample_range > 0:
            raise ValueError(f"clip_sample_range must be positive, got {clip_sample_range}.")
        if not math.isfinite(resolution_gamma) or not math.isfinite(blur_sigma_max):
            raise ValueError(
                f"resolution_gamma and blur_sigma_max must be finite, got {resolution_gamma} and {blur_sigma_max}."
            )
        if not isinstance(sample_size, int):
            self.register_to_config(sample_size=list(sample_size))  # what JSON gives back
        self._betas = make_betas(beta_schedule, num_train_timesteps, beta_start, beta_end)
        self.process = ScaleSpaceProcess(
            NoiseSchedule.from_betas(self._betas),
            ResolutionSchedule.from_curve(
                pyramid(sample_size, num_levels), num_train_timesteps, resolution_schedule, resolution_gamma
            ),
            downsample=downsample_kernel,
            blur_widths=make_blur_widths(num_train_timesteps, blur_sigma_max) if blur_sigma_max else None,
        )
        self.init_noise_sigma = 1.0
        self.num_inference_steps: int | None = None
        self._set(list(range(num_train_timesteps))[::-1])

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    @classmethod
    def _get_compatibles(cls) -> list[type]:
        # No other scheduler changes the image size between steps.
        return [cls]

    @property
    def resolutions(self) -> list[Size]:
        """(height, width) of every level, fine to coarse."""
        return list(self.process.resolution.resolutions)

    @property
    def betas(self) -> torch.Tensor:
        """Variances of the one-step transitions: (T,), float32, on the CPU. A copy: changing it changes nothing."""
        return self._betas.float()

    @property
    def alphas_cumprod(self) -> torch.Tensor:
        """a_t^2 for t = 0..T-1: (T,), float32, on the CPU. A copy of `process.noise`, whose tables are float64.

        With it `diffusers.training_utils.compute_snr(scheduler, timesteps)` works.
        """
        return self.process.noise.signal[:-1].square().float()

    def size_at(self, timestep: int | torch.Tensor) -> Size:
        """(height, width) of x_t for t = -1..T-1; a tensor may hold several timesteps of one level."""
        return self.process.size(timestep if isinstance(timestep, torch.Tensor) else int(timestep))

    def previous_timestep(self, timestep: int | torch.Tensor) -> int:
        """The next less noisy timestep s of the chain below `timestep`; -1, the clean image, after the last."""
        position = bisect_left(self._ascending, int(timestep))
        return self._ascending[position - 1] if position else -1

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Choose the timesteps of the reverse process.

        Parameters
        ----------
        num_inference_steps : int
            N from the number of level changes + 1 to T: exactly N timesteps, evenly spaced, of which the nearest ones
            are moved to the level changes, since the network has learnt to grow the image only there.
        device : optional
            Where `self.timesteps` lives.
        timesteps : sequence of int
            Instead of a number: an explicit, strictly descending list of timesteps in 0..T-1.
        """
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("Give exactly one of num_inference_steps and timesteps.")
        if timesteps is not None:
            chosen = self._check_explicit([int(t) for t in timesteps])
        else:
            chosen = self._spread(int(num_inference_steps))  # type: ignore[arg-type]
        self.num_inference_steps = len(chosen)
        self._set(chosen, device)

    def scale_model_input(self, sample: torch.Tensor, timestep: int | None = None) -> torch.Tensor:
        """The sample itself: this process needs no input scaling."""
        return sample

    def sample_timesteps(self, batch_size: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Random timesteps for one training batch, which must share the sizes of x_t and of the target.

        t is drawn uniformly. If it is a level change, where the target is larger than x_t, the whole batch uses it;
        otherwise every image draws its own t among the timesteps of that level that are not a level change. So the
        marginal of every image's t is uniform (arXiv:2603.08709, section 3).

        Parameters
        ----------
        batch_size : int
            B, at least 1.
        generator : torch.Generator, optional

        Returns
        -------
        torch.Tensor
            (B,), int64, on the CPU, where `add_noise` and the process read them without waiting for a device.

        Examples
        --------
        A training step of your own, with the network's target:

        >>> from ssd.process.losses import min_snr_loss, training_pair
        >>> scheduler, x_0 = SSDScheduler(sample_size=16, num_levels=2), torch.zeros(4, 3, 16, 16)
        >>> t = scheduler.sample_timesteps(4, torch.Generator().manual_seed(0))
        >>> x_t, target = training_pair(scheduler.process, x_0, t, torch.randn(4, 3, *scheduler.size_at(t)))
        >>> prediction = torch.zeros_like(target)  # network(x_t, t, output_size=target.shape[-2:]).sample
        >>> min_snr_loss(scheduler.process, prediction, target, t).shape
        torch.Size([4])
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        device = "cpu" if generator is None else generator.device

        def below(high: int, number: int) -> torch.Tensor:
            return torch.randint(high, (number,), generator=generator, device=device).cpu()

        schedule = self.process.resolution
        t = int(below(len(self), 1))
        if t in schedule.level_changes:
            return torch.full((batch_size,), t)
        allowed = torch.tensor(schedule.within_level(schedule.level(t)))
        return allowed[below(len(allowed), batch_size)]

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_t from clean images.

        Parameters
        ----------
        original_samples : torch.Tensor
            x_0 at full resolution, (B, C, H, W), values in [-1, 1].
        noise : torch.Tensor
            White noise at the size of x_t, (B, C, h, w).
        timesteps : torch.Tensor
            Shape (B,), all of one level, as `sample_timesteps` draws them.

        Raises
        ------
        ValueError
            When the timesteps belong to several levels, so that no tensor can hold the x_t.
        """
        timesteps = timesteps.cpu()  # one wait at most, if they are on a device
        try:
            self.process.level(timesteps)
        except ValueError as error:
            raise ValueError(f"{error} `scheduler.sample_timesteps(batch_size)` draws timesteps that fit.") from None
        return self.process.marginal_sample(original_samples, timesteps, noise)

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        eta: float = 1.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> SSDSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """Draw x_s from x_t and the network's prediction; a pure function of config, timesteps and arguments.

        Parameters
        ----------
        model_output : torch.Tensor
            Prediction of the clean image at the next resolution, shape (B, C, H, W) with (H, W) =
            size_at(previous_timestep(t)).
        timestep : int
            t.
        sample : torch.Tensor
            x_t, shape (B, C, h, w) with (h, w) = size_at(t).
        eta : float
            In [0, 1]: 1 draws from the posterior, 0 is as deterministic as the level change allows.
        generator : optional
            One generator, or a list or tuple with one per image.
        return_dict : bool
            Return an `SSDSchedulerOutput` rather than (prev_sample, pred_original_sample).
        """
        t = int(timestep)
        s = self.previous_timestep(t)
        for name, tensor, when in (("sample", sample, t), ("model_output", model_output, s)):
            if tuple(tensor.shape[-2:]) != self.size_at(when):
                raise ValueError(
                    f"At timestep {t} (next: {s}) {name} must be {self.size_at(when)}, got {tuple(tensor.shape)}."
                )
        prediction = model_output
        if self.config.clip_sample:
            limit = self.config.clip_sample_range
            prediction = prediction.clamp(-limit, limit)
        # Half-precision networks are welcome; the state is computed in float32 or better.
        working = torch.promote_types(sample.dtype, torch.float32)
        x_0_at_s = self.process.blur_to(prediction.to(working), s)
        posterior = self.process.posterior(x_0_at_s, sample.to(working), s=s, t=t, eta=eta)
        prev_sample = posterior.sample(generator).to(sample.dtype)
        if not return_dict:
            return prev_sample, prediction
        return SSDSchedulerOutput(prev_sample=prev_sample, pred_original_sample=prediction)

    def _set(self, descending: list[int], device: str | torch.device | None = None) -> None:
        self._ascending = descending[::-1]
        self.timesteps = torch.tensor(descending, dtype=torch.int64, device=device)

    def _spread(self, number: int) -> list[int]:
        """Exactly `number` evenly spaced timesteps, T-1 first, with every level change among them."""
        last = self.config.num_train_timesteps - 1
        required = {last, *self.process.resolution.level_changes}
        if not len(required) <= number <= last + 1:
            raise ValueError(
                f"num_inference_steps must be in {len(required)}..{last + 1} for this schedule "
                f"(its first step and {len(required) - 1} level changes are needed), got {number}."
            )
        chosen = set(np.linspace(last, 0, number).round().astype(int).tolist())
        for t in sorted(required - chosen, reverse=True):
            chosen.remove(min(chosen - required, key=lambda other: abs(other - t)))
            chosen.add(t)
        return sorted(chosen, reverse=True)

    def _check_explicit(self, timesteps: list[int]) -> list[int]:
        last = self.config.num_train_timesteps - 1
        if not timesteps or any(not 0 <= t <= last for t in timesteps):
            raise ValueError(f"timesteps must be in 0..{last} and at least one, got {timesteps}.")
        if any(later >= earlier for earlier, later in pairwise(timesteps)):
            raise ValueError(f"timesteps must be strictly descending, got {timesteps}.")
        skipped = [t for t in self.process.resolution.level_changes if timesteps[0] > t and t not in timesteps]
        if skipped:
            logger.warning(
                f"These timesteps skip the level changes {skipped}: the network has learnt to grow the image only "
                "there, expect worse images."
            )
        return timesteps
