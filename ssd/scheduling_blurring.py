"""BlurringScheduler: blurring diffusion as published, behind diffusers' scheduler interface."""

from __future__ import annotations

from diffusers.configuration_utils import register_to_config

# By name: diffusers resolves it in this module when it reads model_index.json.
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: F401

from .process.blurring import BlurringProcess
from .process.predictions import check_prediction_type
from .schedulers.base import ProcessScheduler, check_limits


class BlurringScheduler(ProcessScheduler):
    """Ancestral sampling of blurring diffusion (arXiv:2209.05557), at one resolution.

    Parameters
    ----------
    num_train_timesteps : int
        T, the number of noisy states, at most 100000.
    sample_size : int or (height, width)
        The images' size in pixels, each side at most 4096.
    blur_sigma_max : float
        The width of the blur at t = T-1 in pixels, at least 0.
    min_gain : float
        What is left of every frequency at least, in (0, 1].
    noise : {"isotropic", "variance_preserving"}
        One noise level for all frequencies, as published, or one for each (arXiv:2207.11192).
    prediction_type : {"epsilon", "sample"}
        The noise, as published, or the clean image.
    clip_sample : bool
        Whether to clip the prediction of the clean image. Off by default: what the noise leaves of blurred frequencies
        is far outside of [-1, 1] before it is blurred again.
    clip_sample_range : float
        The largest absolute value that is left, positive.

    Examples
    --------
    >>> scheduler = BlurringScheduler(sample_size=16)
    >>> scheduler.set_timesteps(50)
    >>> len(scheduler.timesteps), scheduler.prediction_size(999)
    (50, (16, 16))
    """

    process: BlurringProcess

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        sample_size: int | tuple[int, int] = 64,
        blur_sigma_max: float = 20.0,
        min_gain: float = 0.001,
        noise: str = "isotropic",
        prediction_type: str = "epsilon",
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
    ) -> None:
        check_limits(num_train_timesteps, sample_size, clip_sample_range)
        check_prediction_type(prediction_type)
        if prediction_type == "v_prediction":
            raise ValueError("Blurring diffusion predicts 'epsilon', as published, or 'sample', got 'v_prediction'.")
        if clip_sample and prediction_type == "epsilon":
            raise ValueError(
                "clip_sample does not work with epsilon in blurring diffusion, whose clean images are only meant to be "
                "blurred again: leave it out, or predict the sample."
            )
        if not isinstance(sample_size, int):
            self.register_to_config(sample_size=list(sample_size))  # what JSON gives back
        height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
        self._start(BlurringProcess((height, width), num_train_timesteps, blur_sigma_max, min_gain, noise))
