"""What the schedulers of the project share: a diffusion process behind diffusers' interface.

Shape letters: B batch, C channels; H W the size of x_s, h w the size of x_t, s the timestep after t (s < t).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput, logging

from ..operators.sizes import Size
from ..process.diffusion import DiffusionProcess
from ..process.posterior import GaussianPosterior, Generators
from ..process.spacing import SPACINGS

logger = logging.get_logger(__name__)

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


class ProcessScheduler(SchedulerMixin, ConfigMixin):
    """The reverse process of a `DiffusionProcess`, step by step.

    A scheduler registers its arguments, among them `prediction_type`, `clip_sample` and `clip_sample_range`, builds its
    process, and hands it to `_start`.

    Attributes
    ----------
    process : DiffusionProcess
    timesteps : torch.Tensor
        The chain, descending, int64.
    num_inference_steps : int or None
    switches : list of int or None
        First timesteps of the coarser levels that were asked for; None stands for those of the config.
    """

    order = 1
    process: DiffusionProcess
    init_noise_sigma = 1.0
    num_inference_steps: int | None = None
    switches: list[int] | None = None

    def _start(self, process: DiffusionProcess) -> None:
        self.process = process
        self._set(list(range(process.num_timesteps))[::-1])

    def __len__(self) -> int:
        return self.process.num_timesteps

    @classmethod
    def _get_compatibles(cls) -> list[type]:
        # No other scheduler changes the image size between steps.
        return [cls]

    @property
    def resolutions(self) -> list[Size]:
        """(height, width) of every level, fine to coarse."""
        return list(self.process.resolution.resolutions)

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

    def prediction_size(self, timestep: int | torch.Tensor) -> Size:
        """(height, width) of what the network predicts from x_t."""
        return self.process.prediction_size(int(timestep), self.previous_timestep(timestep))

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[int] | None = None,
        switches: Sequence[int] | None = None,
    ) -> None:
        """Choose the timesteps of the reverse process.

        Parameters
        ----------
        num_inference_steps : int
            N, exactly so many timesteps (`ssd.process.spacing`), of which the nearest ones are moved to those where the
            image has to grow; so N is at least the number of levels.
        device : optional
            Where `self.timesteps` lives.
        timesteps : sequence of int
            Instead of a number: an explicit, strictly descending list of timesteps in 0..T-1.
        switches : sequence of int, optional
            See `use_switches`.
        """
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("Give exactly one of num_inference_steps and timesteps.")
        self.use_switches(switches)
        if timesteps is not None:
            chosen = self._check_explicit([int(t) for t in timesteps])
        else:
            chosen = self._spread(int(num_inference_steps))  # type: ignore[arg-type]
        self.num_inference_steps = len(chosen)
        self._set(chosen, device)

    def use_switches(self, switches: Sequence[int] | None) -> None:
        """Let the coarser levels begin at other timesteps; None brings those of the config back.

        Raises
        ------
        ValueError
            When the process has no such choice, or the network was not trained for this one.
        """
        if switches is not None:
            raise ValueError(f"{type(self).__name__} has one resolution schedule: leave switches out.")

    def scale_model_input(self, sample: torch.Tensor, timestep: int | torch.Tensor) -> torch.Tensor:
        """What the network is given for x_t: x_t itself, unless the prediction is preconditioned.

        Parameters
        ----------
        sample : torch.Tensor
            x_t, (B, C, h, w).
        timestep : int or torch.Tensor
            t; one, or (B,), best on the CPU.
        """
        return self.process.network_input(self.config.prediction_type, sample, timestep)

    def sample_timesteps(self, batch_size: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Random timesteps for one training batch, which must share the sizes of x_t and of the target.

        t is drawn uniformly. If it is one at which the image grows, the whole batch uses it; otherwise every image
        draws its own t among the other timesteps of that level. So the marginal of every image's t is uniform
        (arXiv:2603.08709, section 3).

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

        >>> from ssd import SSDScheduler
        >>> from ssd.process.losses import denoising_loss, training_pair
        >>> scheduler, x_0 = SSDScheduler(sample_size=16, num_levels=2), torch.zeros(4, 3, 16, 16)
        >>> t = scheduler.sample_timesteps(4, torch.Generator().manual_seed(0))
        >>> x_t, target = training_pair(scheduler.process, x_0, t, torch.randn(4, 3, *scheduler.size_at(t)))
        >>> output = torch.zeros_like(target)  # network(x_t, t, output_size=target.shape[-2:]).sample
        >>> denoising_loss(scheduler.process, output, target, t).shape
        torch.Size([4])
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        device = "cpu" if generator is None else generator.device

        def below(high: int, number: int) -> torch.Tensor:
            return torch.randint(high, (number,), generator=generator, device=device).cpu()

        process, t = self.process, int(below(len(self), 1))
        if t in process.required_timesteps:
            return torch.full((batch_size,), t)
        allowed = torch.tensor(process.shared_timesteps(process.level(t)))
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
        generator: Generators = None,
        return_dict: bool = True,
        correction: Callable[[torch.Tensor, int], torch.Tensor] | None = None,
    ) -> SSDSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """Draw x_s from x_t and the network's prediction; a pure function of config, timesteps and arguments.

        Parameters
        ----------
        model_output : torch.Tensor
            The network's output, (B, C, *prediction_size(t)): the clean image, or what `prediction_type` says.
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
        correction : callable, optional
            (prediction of the clean image, clipped; s) -> what is taken for it, by the step and by all that it
            remembers: how pipelines hold on to what is known of the image (`ssd.process.consistency`).
        """
        t = int(timestep)
        s = self.previous_timestep(t)
        for name, tensor, size in (
            ("sample", sample, self.size_at(t)),
            ("model_output", model_output, self.prediction_size(t)),
        ):
            if tuple(tensor.shape[-2:]) != size:
                raise ValueError(f"At timestep {t} (next: {s}) {name} must be {size}, got {tuple(tensor.shape)}.")
        # Half-precision networks are welcome; the state is computed in float32 or better.
        x_t = sample.to(torch.promote_types(sample.dtype, torch.float32))
        prediction = self.clean_image(model_output, x_t, t, s)
        if correction is not None:
            prediction = correction(prediction, s)
        prev_sample = self._posterior(prediction, x_t, s, t, eta, generator).sample(generator).to(sample.dtype)
        if not return_dict:
            return prev_sample, prediction
        return SSDSchedulerOutput(prev_sample=prev_sample, pred_original_sample=prediction)

    def clean_image(
        self, model_output: torch.Tensor, x_t: torch.Tensor, t: int | torch.Tensor, s: int | torch.Tensor
    ) -> torch.Tensor:
        """The clean image that the network's output stands for, clipped if the configuration says so.

        Parameters
        ----------
        model_output : torch.Tensor
            (B, C, H, W), from x_t on the way to x_s.
        x_t : torch.Tensor
            (B, C, h, w); the result has its dtype.
        t, s : int or torch.Tensor
            One of each, or (B,).
        """
        clean = self.process.clean_image(self.config.prediction_type, model_output.to(x_t.dtype), x_t, t, s)
        limit = self.config.clip_sample_range
        return clean.clamp(-limit, limit) if self.config.clip_sample else clean

    def _posterior(
        self, clean: torch.Tensor, x_t: torch.Tensor, s: int, t: int, eta: float, generator: Generators
    ) -> GaussianPosterior:
        """x_s given x_t and a prediction of the clean image; `generator` is for noise on the prediction."""
        return self.process.reverse(clean, x_t, s, t, eta)

    @property
    def _spacing(self) -> str:
        """One of `SPACINGS`: how `set_timesteps` chooses."""
        return "linspace"

    def _set(self, descending: list[int], device: str | torch.device | None = None) -> None:
        self._ascending = descending[::-1]
        self.timesteps = torch.tensor(descending, dtype=torch.int64, device=device)

    def _spread(self, number: int) -> list[int]:
        """Exactly `number` timesteps, T-1 first, with all that the process requires among them."""
        last = len(self) - 1
        required = {last, *self.process.required_timesteps}
        if not len(required) <= number <= last + 1:
            raise ValueError(
                f"num_inference_steps must be in {len(required)}..{last + 1} for this schedule "
                f"(its first step and {len(required) - 1} level changes are needed), got {number}."
            )
        return SPACINGS[self._spacing](self.process, number)

    def _check_explicit(self, timesteps: list[int]) -> list[int]:
        last = len(self) - 1
        if not timesteps or any(not 0 <= t <= last for t in timesteps):
            raise ValueError(f"timesteps must be in 0..{last} and at least one, got {timesteps}.")
        if any(later >= earlier for earlier, later in pairwise(timesteps)):
            raise ValueError(f"timesteps must be strictly descending, got {timesteps}.")
        skipped = [t for t in self.process.required_timesteps if timesteps[0] > t and t not in timesteps]
        if skipped:
            self._refuse_or_warn(skipped)
        return timesteps

    def _refuse_or_warn(self, skipped: list[int]) -> None:
        """What to do when explicit timesteps leave out some that the process requires."""
        logger.warning(
            f"These timesteps skip the level changes {skipped}: the network has learnt to grow the image only there, "
            "expect worse images."
        )


def check_limits(num_train_timesteps: int, sample_size: int | Sequence[int], clip_sample_range: float) -> None:
    """Raise a ValueError for a schedule or an image that is too large, and for a range that is not positive."""
    if num_train_timesteps > MAX_TIMESTEPS:
        raise ValueError(f"num_train_timesteps must be at most {MAX_TIMESTEPS}, got {num_train_timesteps}.")
    if max([sample_size] if isinstance(sample_size, int) else sample_size) > MAX_SIDE:
        raise ValueError(f"sample_size must be at most {MAX_SIDE} pixels a side, got {sample_size}.")
    if not clip_sample_range > 0:
        raise ValueError(f"clip_sample_range must be positive, got {clip_sample_range}.")
