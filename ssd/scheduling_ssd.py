"""SSDScheduler: the scale-space process behind diffusers' scheduler interface.

Shape letters: B batch, C channels; H W the size of x_s, h w the size of x_t, s the timestep after t (s < t).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config

# By name: diffusers resolves it in this module when it reads model_index.json.
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: F401
from diffusers.utils import logging

from .operators.sizes import Size
from .process.noise import NoiseSchedule, extended_betas, make_betas, make_blur_widths
from .process.posterior import GaussianPosterior, Generators, white_noise
from .process.preconditioning import DataMoments
from .process.predictions import check_prediction_type
from .process.residuals import KINDS, ResidualTable, adds_noise
from .process.resolution import ResolutionSchedule, pyramid
from .process.scale_space import COVARIANCES, ScaleSpaceProcess
from .process.spacing import SPACINGS
from .process.switches import check_in_bands, switch_bands
from .schedulers.base import ProcessScheduler, SSDSchedulerOutput, check_limits
from .schedulers.multistep import Multistep

__all__ = ["SSDScheduler", "SSDSchedulerOutput"]

VARIANCE_TYPES = ("fixed_small", "fixed_large")
SOLVER_ORDERS = (1, 2)
STEPS_PER_LEVEL = 3
"""With timestep_spacing="logsnr" fewer steps leave a level with nothing to extrapolate from."""

logger = logging.get_logger(__name__)


class SSDScheduler(ProcessScheduler):
    """Ancestral sampling of Scale Space Diffusion (arXiv:2603.08709, theorem 3).

    Timesteps t = T-1..0 are noisy states; -1 is the clean image. With `num_levels=1` it is DDPM, and DDIM with eta = 0,
    with any of diffusers' prediction and variance types.

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
        The number of resolutions, each half of the one before.
    resolution_schedule : {"equal", "convex_decay", "sigmoid_like", "tanh_like"}
        See `ssd.process.resolution`.
    resolution_gamma : float
        The shape of the resolution schedule, positive.
    downsample_kernel : {"bilinear", "area", "bicubic", "lanczos3", "dct"}
        How images shrink; bilinear, antialiased, is the paper's.
    prediction_type : {"sample", "epsilon", "v_prediction", "preconditioned"}
        What the network predicts: the clean image at the next resolution, D_s x_0, as in the paper; or the noise or the
        velocity of x_t. Where the image grows, x_t and its noise say nothing of the finer details: there the network
        predicts the clean image in any case. preconditioned is what a linear estimate of the clean image leaves, at any
        size (`ssd.process.preconditioning`); it needs `data_moments`.
    clip_sample : bool
        Whether to clip the prediction of the clean image to [-clip_sample_range, clip_sample_range].
    clip_sample_range : float
        The largest absolute value that is left, positive.
    blur_sigma_max : float
        The width, in pixels of the full resolution, of the Gaussian blur that has accumulated at t = T-1; 0 is no blur.
        The marginals stay isotropic. For blurring diffusion as published see `BlurringScheduler`.
    resolutions : sequence of int or (height, width), optional
        The sizes of all levels, fine to coarse, instead of `num_levels` halvings; they may shrink by any step. The
        first is `sample_size`.
    variance_type : {"fixed_small", "fixed_large"}
        The variance of ancestral steps, eta = 1, of first order: the posterior's (theorem 3), or that of the forward
        step, with one level only. Other eta's, and second order, have variances of their own.
    covariance : {"exact", "isotropic"}
        isotropic is an ablation, for study: white noise of the same variance instead of the posterior's covariance.
    solver_order : {1, 2}
        1 holds the prediction during a step, as in the paper; 2 takes it in the middle of the step, extrapolated from
        an earlier prediction of the same chain (`ssd.process.solver`): much nearer to what the network knows, at the
        same cost.
    timestep_spacing : {"linspace", "logsnr"}
        How `set_timesteps(N)` chooses: evenly in t, or evenly in what the state knows of its image
        (`ssd.process.spacing`), which second order needs.
    residual_covariance : {"none", "null_space", "change", "all"}
        Where the prediction gets noise of the spread that a mean lacks, by the calibration: nowhere; in the new details
        at level changes, which fits second order; in all directions at level changes; everywhere, which fits first
        order with eta = 1.
    calibration : dict, optional
        What `ssd.evaluation.calibrate` measured of the network, `ssd.process.residuals.ResidualTable.to_config`.
    switches : sequence of int, optional
        The first timestep of every coarser level, ascending, instead of a resolution schedule, which then has no
        effect.
    switch_jitter : float
        How far the switches moved in training, in [0, 0.5], as a share of the way to their neighbours
        (`ssd.process.switches`). So far `set_timesteps(.., switches=[..])` may move them: one model then is several,
        of different speed.
    level_gain : float
        In 1..2, a factor of downsampling, see `ScaleSpaceProcess`: 2 makes levels isometric. The betas are extended, so
        that the coarsest level still ends in noise (`ssd.process.noise.extended_betas`). 1 is the paper's process.
    data_moments : dict, optional
        What a preconditioned prediction needs to know of the data, `DataMoments.to_config`; with others it is stored.
    handover_snr : float
        A preconditioned prediction is the linear estimate's correction where the signal-to-noise ratio is well above
        this, and the clean image where it is well below; 0 is the former everywhere.

    Examples
    --------
    >>> scheduler = SSDScheduler(sample_size=32, num_levels=3)
    >>> scheduler.set_timesteps(50)
    >>> len(scheduler.timesteps), scheduler.size_at(999), scheduler.size_at(0)
    (50, (8, 8), (32, 32))
    """

    process: ScaleSpaceProcess
    residuals: ResidualTable | None

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
        resolutions: Sequence[int | Sequence[int]] | None = None,
        variance_type: str = "fixed_small",
        covariance: str = "exact",
        solver_order: int = 2,
        timestep_spacing: str = "logsnr",
        residual_covariance: str = "none",
        calibration: dict[str, Any] | None = None,
        switches: Sequence[int] | None = None,
        switch_jitter: float = 0.0,
        level_gain: float = 1.0,
        data_moments: dict[str, Any] | None = None,
        handover_snr: float = 0.0,
    ) -> None:
        check_limits(num_train_timesteps, sample_size, clip_sample_range)
        _check_finite(resolution_gamma, blur_sigma_max, handover_snr)
        if not isinstance(sample_size, int):
            self.register_to_config(sample_size=list(sample_size))  # what JSON gives back
        if resolutions is None:
            sizes = pyramid(sample_size, num_levels)
        else:
            sizes = explicit_sizes(resolutions, sample_size)
            self.register_to_config(resolutions=[list(size) for size in sizes], num_levels=len(sizes))
        _check_choices(prediction_type, blur_sigma_max, variance_type, covariance, len(sizes))
        _check_sampler(solver_order, timestep_spacing, residual_covariance, calibration)
        betas = make_betas(beta_schedule, num_train_timesteps, beta_start, beta_end)
        self._betas = extended_betas(betas, level_gain ** (len(sizes) - 1))
        if switches is None:
            levels = ResolutionSchedule.from_curve(sizes, num_train_timesteps, resolution_schedule, resolution_gamma)
        else:
            self.register_to_config(switches=list(switches))
            levels = ResolutionSchedule.from_switches(sizes, num_train_timesteps, list(switches))
        process = ScaleSpaceProcess(
            NoiseSchedule.from_betas(self._betas),
            levels,
            downsample=downsample_kernel,
            blur_widths=make_blur_widths(num_train_timesteps, blur_sigma_max) if blur_sigma_max else None,
            level_gain=level_gain,
            moments=_moments(prediction_type, data_moments, len(sizes)),
            handover_snr=handover_snr,
        )
        self._start(process)
        self.residuals = None if calibration is None else ResidualTable.from_config(self.process, calibration)
        self._process_of_config = self.process
        if switch_jitter:
            self.process.check_bands(self.switch_bands)

    @property
    def betas(self) -> torch.Tensor:
        """Variances of the one-step transitions: (T,), float32, on the CPU. A copy: changing it changes nothing."""
        return self._betas.float()

    @property
    def switch_bands(self) -> list[range]:
        """The timesteps at which each coarser level may begin, finest first: those that training had."""
        changes = self._process_of_config.resolution.level_changes
        return switch_bands(changes, len(self), self.config.switch_jitter)

    def use_switches(self, switches: Sequence[int] | None) -> None:
        if switches is not None:
            check_in_bands(switches, self.switch_bands)
            if self.config.residual_covariance != "none":
                raise ValueError(
                    "The calibration is of the model's own switches: leave switches out, or sample with "
                    "residual_covariance='none'."
                )
        self.switches = None if switches is None else list(switches)
        usual = self._process_of_config
        self.process = usual if switches is None else usual.with_switches(switches)

    @property
    def _spacing(self) -> str:
        return self.config.timestep_spacing

    def _spread(self, number: int) -> list[int]:
        chosen = super()._spread(number)
        enough = STEPS_PER_LEVEL * len(self.resolutions)
        if self._spacing == "logsnr" and number < enough:
            logger.warning(
                f"{number} steps are few for {len(self.resolutions)} levels with timestep_spacing='logsnr': expect "
                f"better images from {enough} steps on."
            )
        return chosen

    def _set(self, descending: list[int], device: str | torch.device | None = None) -> None:
        super()._set(descending, device)
        self._solver = Multistep(self.process, descending) if self.config.solver_order == 2 else None

    def _posterior(
        self, clean: torch.Tensor, x_t: torch.Tensor, s: int, t: int, eta: float, generator: Generators
    ) -> GaussianPosterior:
        x_hat = self._solver.midpoint(clean, t, s) if self._solver else self.process.from_target(clean, s)
        if self.residuals is not None and adds_noise(self.process, self.config.residual_covariance, s, t):
            x_hat = x_hat + self.residuals.noise(self.config.residual_covariance, s, t, white_noise(x_hat, generator))
        posterior = self.process.posterior(x_hat, x_t, s, t, eta, self.config.covariance)
        if self.config.variance_type == "fixed_large" and eta == 1 and s != -1 and self._solver is None:
            # Of the forward step (arXiv:2006.11239, section 3.2): beta_t, or 1 - (a_t / a_s)^2 over several timesteps.
            return posterior.with_white_noise(1 - (self.process.signal(t) / self.process.signal(s)) ** 2)
        return posterior


def explicit_sizes(resolutions: Sequence[int | Sequence[int]], sample_size: int | Sequence[int]) -> list[Size]:
    """The sizes of all levels, fine to coarse, checked.

    Raises
    ------
    ValueError
        When they do not begin with the full resolution, or grow, or stay as they are.
    """
    full = (sample_size, sample_size) if isinstance(sample_size, int) else tuple(sample_size)
    pairs = [(size, size) if isinstance(size, int) else tuple(size) for size in resolutions]
    if not pairs or any(len(size) != 2 or min(size) < 1 for size in pairs):
        raise ValueError(f"resolutions must be positive sides or pairs (height, width), got {list(resolutions)}.")
    if pairs[0] != full:
        raise ValueError(f"resolutions must begin with the full resolution {full}, got {pairs[0]}.")
    for fine, coarse in pairwise(pairs):
        if coarse == fine or coarse[0] > fine[0] or coarse[1] > fine[1]:
            raise ValueError(
                f"resolutions must shrink from one level to the next, since images shrink as noise grows, but {coarse} "
                f"follows {fine}: list them from the full resolution down."
            )
    return [(size[0], size[1]) for size in pairs]


def _check_finite(resolution_gamma: float, blur_sigma_max: float, handover_snr: float) -> None:
    if not all(map(math.isfinite, (resolution_gamma, blur_sigma_max, handover_snr))):
        raise ValueError(
            "resolution_gamma, blur_sigma_max and handover_snr must be finite, got "
            f"{resolution_gamma}, {blur_sigma_max} and {handover_snr}."
        )


def _moments(prediction_type: str, data_moments: dict[str, Any] | None, num_levels: int) -> DataMoments | None:
    """The moments of the data, checked; a ValueError where the prediction needs them and there are none."""
    if data_moments is not None:
        return DataMoments.from_config(data_moments, num_levels)
    if prediction_type == "preconditioned":
        raise ValueError(
            "prediction_type='preconditioned' needs data_moments: the mean of every channel, and the variance of the "
            "images at every level. train_ssd.py measures them when a run begins."
        )
    return None


def _check_sampler(
    solver_order: int, timestep_spacing: str, residual_covariance: str, calibration: dict[str, Any] | None
) -> None:
    """Raise a ValueError for a sampler that there is not."""
    if residual_covariance in KINDS[1:] and calibration is None:
        raise ValueError(
            f"residual_covariance={residual_covariance!r} needs a calibration of this network: make one with  "
            "python -m ssd.evaluation.calibrate --model FOLDER --data DATA."
        )
    for name, value, allowed in (
        ("solver_order", solver_order, SOLVER_ORDERS),
        ("timestep_spacing", timestep_spacing, tuple(SPACINGS)),
        ("residual_covariance", residual_covariance, KINDS),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}.")


def _check_choices(
    prediction_type: str, blur_sigma_max: float, variance_type: str, covariance: str, num_levels: int
) -> None:
    """Raise a ValueError for choices that there are not, or that do not go together."""
    check_prediction_type(prediction_type)
    if blur_sigma_max and prediction_type != "sample":
        raise ValueError(
            f"With blur the network predicts the sample, got prediction_type={prediction_type!r}: noise alone does not "
            "undo a blur. Use BlurringScheduler for blurring diffusion with epsilon."
        )
    for name, value, allowed in (
        ("variance_type", variance_type, VARIANCE_TYPES),
        ("covariance", covariance, COVARIANCES),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
    if variance_type == "fixed_large" and (num_levels > 1 or covariance != "exact"):
        raise ValueError(
            f"variance_type='fixed_large' is for one level with the exact covariance, got {num_levels} levels and "
            f"covariance={covariance!r}: use 'fixed_small', the posterior's."
        )
