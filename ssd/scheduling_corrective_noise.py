"""CorrectiveNoiseScheduler: several resolutions without scale space, behind diffusers' scheduler interface."""

from __future__ import annotations

import math

from diffusers.configuration_utils import register_to_config

# By name: diffusers resolves it in this module when it reads model_index.json.
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: F401

from .process.corrective_noise import CorrectiveNoiseProcess
from .process.noise import NoiseSchedule, make_betas
from .process.predictions import check_prediction_type
from .process.resolution import ResolutionSchedule, pyramid
from .schedulers.base import ProcessScheduler, check_limits


class CorrectiveNoiseScheduler(ProcessScheduler):
    """Diffusion at every level, with corrective noise and a roll-back in time where the image grows.

    The ablation "Flexi-UNet without SSD" of arXiv:2603.08709, as users of pyramidal flow matching (arXiv:2410.05954)
    know it. Timesteps count the states of the whole chain, which are more than `num_train_timesteps`: times between a
    growth and its roll-back occur at two levels. `process.times` has the time of every state.

    Parameters
    ----------
    num_train_timesteps : int
        T, the number of times, at most 100000.
    beta_start, beta_end, beta_schedule
        As in `SSDScheduler`.
    sample_size : int or (height, width)
        The full resolution in pixels; each side at most 4096 and divisible by 2^(num_levels - 1).
    num_levels : int
        The number of resolutions.
    resolution_schedule : {"equal", "convex_decay", "sigmoid_like", "tanh_like"}
        Where levels end; equal is the paper's in this ablation.
    resolution_gamma : float
        The shape of the resolution schedule, positive.
    downsample_kernel : {"bilinear", "area", "bicubic", "lanczos3", "dct"}
    snr_drop : float
        By which factor the signal-to-noise ratio falls where the image grows, at least 4.
    prediction_type : {"sample", "epsilon", "v_prediction"}
        What the network predicts, always at the size of its input.
    clip_sample : bool
    clip_sample_range : float

    Examples
    --------
    >>> scheduler = CorrectiveNoiseScheduler(sample_size=32, num_levels=2)
    >>> len(scheduler), scheduler.size_at(618), scheduler.size_at(619), scheduler.process.times[618:620]
    (1118, (32, 32), (16, 16), (618, 501))
    """

    process: CorrectiveNoiseProcess

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        sample_size: int | tuple[int, int] = 64,
        num_levels: int = 4,
        resolution_schedule: str = "equal",
        resolution_gamma: float = 0.5,
        downsample_kernel: str = "bilinear",
        snr_drop: float = 4.0,
        prediction_type: str = "sample",
        clip_sample: bool = True,
        clip_sample_range: float = 1.0,
    ) -> None:
        check_limits(num_train_timesteps, sample_size, clip_sample_range)
        check_prediction_type(prediction_type)
        if not math.isfinite(resolution_gamma) or not math.isfinite(snr_drop):
            raise ValueError(f"resolution_gamma and snr_drop must be finite, got {resolution_gamma} and {snr_drop}.")
        if not isinstance(sample_size, int):
            self.register_to_config(sample_size=list(sample_size))  # what JSON gives back
        self._start(
            CorrectiveNoiseProcess(
                NoiseSchedule.from_betas(make_betas(beta_schedule, num_train_timesteps, beta_start, beta_end)),
                ResolutionSchedule.from_curve(
                    pyramid(sample_size, num_levels), num_train_timesteps, resolution_schedule, resolution_gamma
                ),
                downsample_kernel,
                snr_drop,
            )
        )

    def _refuse_or_warn(self, skipped: list[int]) -> None:
        raise ValueError(
            f"These timesteps skip {skipped}, the only ones to which corrective noise leads: put them into the list, "
            "or give num_inference_steps."
        )
