"""What every diffusion process of the project offers: tables by timestep, states, targets, and the way back.

Timesteps t = 0..T-1 are noisy states, t = -1 is the clean image; s < t is the less noisy one. Shape letters: B batch,
C channels; H W the full resolution, h w the size of x_t.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from ..operators.linear import LinearOperator
from ..operators.placing import like, to_device
from ..operators.sizes import Size
from .noise import NoiseSchedule
from .posterior import GaussianPosterior
from .predictions import Conversion, conversion, output_scale
from .resolution import ResolutionSchedule

Timestep = int | torch.Tensor
"""One timestep, or per-image timesteps of shape (B,), integers that all live on one level.

Best on the CPU, wherever the images are: their values choose the level, so timesteps on an accelerator make the program
wait for it.
"""


class DiffusionProcess(ABC):
    """A process whose states are x_t = a_t D_t x_0 + noise, with a size r(t) for every timestep.

    Parameters
    ----------
    noise : NoiseSchedule
        a_t and sigma_t.
    resolution : ResolutionSchedule
        The level of every timestep.

    Raises
    ------
    ValueError
        When the schedules disagree on T.
    """

    def __init__(self, noise: NoiseSchedule, resolution: ResolutionSchedule) -> None:
        if noise.num_timesteps != len(resolution.levels):
            raise ValueError(
                f"The noise schedule has {noise.num_timesteps} timesteps, "
                f"the resolution schedule {len(resolution.levels)}: they must be equal."
            )
        self.noise = noise
        self.resolution = resolution

    @property
    def num_timesteps(self) -> int:
        """T, the number of noisy states."""
        return self.noise.num_timesteps

    @property
    def required_timesteps(self) -> tuple[int, ...]:
        """The timesteps that every chain of the reverse process has to visit, ascending: the level changes.

        In training each of them has batches of its own.
        """
        return self.resolution.level_changes

    def shared_timesteps(self, level: int) -> tuple[int, ...]:
        """The other timesteps of `level`, ascending: images of one batch may have different ones."""
        required = set(self.required_timesteps)
        return tuple(t for t, other in enumerate(self.resolution.levels) if other == level and t not in required)

    def signal(self, t: Timestep) -> torch.Tensor:
        """a_t, float64: shape () for one timestep, (B, 1, 1, 1) on their device for per-image timesteps."""
        return self._lookup(self.noise.signal, t)

    def sigma(self, t: Timestep) -> torch.Tensor:
        """sigma_t, float64: shape () for one timestep, (B, 1, 1, 1) on their device for per-image timesteps."""
        return self._lookup(self.noise.sigma, t)

    def level(self, t: Timestep) -> int:
        """Level of timestep(s) t, 0 the finest. Per-image timesteps must share it."""
        t = self._checked(t)
        levels = {self.resolution.level(i) for i in ([t] if isinstance(t, int) else t.flatten().tolist())}
        if len(levels) != 1:
            raise ValueError(f"Per-image timesteps must live on one level, got levels {sorted(levels)}.")
        return levels.pop()

    def size(self, t: Timestep) -> Size:
        """(height, width) of x_t."""
        return self.resolution.resolutions[self.level(t)]

    def prediction_size(self, t: Timestep, s: Timestep) -> Size:
        """(height, width) of the clean image that the network predicts from x_t, on the way to x_s: the size of x_s."""
        return self.size(s)

    def image_scale(self, t: Timestep) -> float:
        """How much larger D_t x_0 is than the image of its size that networks see and predict."""
        return 1.0

    @abstractmethod
    def operator(self, s: Timestep, t: Timestep) -> LinearOperator:
        """D_st, the degradation from x_s to x_t (without the factor a_t / a_s), s <= t; s = -1 for the clean image."""

    def degrade(self, x_0: torch.Tensor, t: Timestep) -> torch.Tensor:
        """D_t x_0: (B, C, H, W) at full resolution -> (B, C, h, w) at the size of timestep t."""
        return self.operator(-1, t).forward(x_0)

    def marginal_sample(self, x_0: torch.Tensor, t: Timestep, noise: torch.Tensor) -> torch.Tensor:
        """x_t = a_t D_t x_0 + noise of its covariance, from (B, C, H, W) and white noise (B, C, h, w): (B, C, h, w).

        Raises
        ------
        ValueError
            When the noise has another shape than x_t: one image's noise must not serve the others.
        """
        t = self._checked(t)
        degraded = self.degrade(x_0, t)
        if noise.shape != degraded.shape:
            raise ValueError(f"noise must have the size of x_t, {tuple(degraded.shape)}, got {tuple(noise.shape)}.")
        return like(self.signal(t), degraded) * degraded + self.coloured(noise, t)

    def coloured(self, noise: torch.Tensor, t: Timestep) -> torch.Tensor:
        """White noise (B, C, h, w) with the covariance of x_t given x_0: sigma_t^2 I."""
        return like(self.sigma(t), noise) * noise

    @abstractmethod
    def target(self, x_0: torch.Tensor, t: Timestep) -> torch.Tensor:
        """The clean image that the network learns to predict from x_t, at `prediction_size(t, t - 1)`."""

    @abstractmethod
    def reverse(
        self, clean: torch.Tensor, x_t: torch.Tensor, s: Timestep, t: Timestep, eta: float = 1.0
    ) -> GaussianPosterior:
        """The Gaussian of x_s given x_t and a prediction `clean` of the clean image.

        Parameters
        ----------
        clean : torch.Tensor
            `target(x_0, t)` or its prediction, at `prediction_size(t, s)`.
        x_t : torch.Tensor
            (B, C, h, w).
        s, t : int or torch.Tensor
            s < t; s = -1 is the clean image: the result is then the prediction itself.
        eta : float
            In [0, 1]: 1 is the exact posterior, 0 as deterministic as the process allows.
        """

    def check_eta(self, eta: float) -> None:
        """Raise a ValueError for an eta that this process does not have."""
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must be in [0, 1], got {eta}.")

    def prediction_kind(self, prediction_type: str, t: Timestep, s: Timestep) -> str:
        """How a network of this prediction type predicts from x_t on the way to x_s.

        Noise and velocity are defined where the prediction has the size of x_t; elsewhere the network predicts the
        clean image itself.
        """
        same_size = self.prediction_size(t, s) == self.size(t)
        return prediction_type if same_size or prediction_type == "preconditioned" else "sample"

    def network_input(self, prediction_type: str, x_t: torch.Tensor, t: Timestep) -> torch.Tensor:
        """What the network sees of x_t: x_t itself, unless the prediction is preconditioned."""
        return x_t

    def conversion(self, prediction_type: str, x_t: torch.Tensor, t: Timestep, s: Timestep) -> Conversion:
        """From the network's output for x_t to the clean image at `prediction_size(t, s)`, and back."""
        kind = self._known_kind(prediction_type, t, s)
        found = conversion(kind, x_t, like(self.signal(t), x_t), like(self.sigma(t), x_t))
        return found if kind == "sample" else found.divided(self.image_scale(t))

    def output_scale(self, prediction_type: str, t: Timestep, s: Timestep) -> torch.Tensor:
        """How far the clean image moves with the network's output: float64, () or (B, 1, 1, 1)."""
        kind = self._known_kind(prediction_type, t, s)
        scale = output_scale(kind, self.signal(t), self.sigma(t))
        return scale if kind == "sample" else scale / self.image_scale(t)

    def network_target(
        self, prediction_type: str, x_0: torch.Tensor, x_t: torch.Tensor, t: Timestep, noise: torch.Tensor
    ) -> torch.Tensor:
        """What the network is trained to give for x_t = `marginal_sample(x_0, t, noise)`."""
        return self.conversion(prediction_type, x_t, t, t - 1).from_sample(self.target(x_0, t))

    def clean_image(
        self, prediction_type: str, prediction: torch.Tensor, x_t: torch.Tensor, t: Timestep, s: Timestep
    ) -> torch.Tensor:
        """The clean image that a network's output stands for, at `prediction_size(t, s)`."""
        return self.conversion(prediction_type, x_t, t, s).to_sample(prediction)

    def _known_kind(self, prediction_type: str, t: Timestep, s: Timestep) -> str:
        kind = self.prediction_kind(prediction_type, t, s)
        if kind == "preconditioned":
            raise ValueError(f"{type(self).__name__} has no linear estimate: predict sample, epsilon or v_prediction.")
        return kind

    def _lookup(self, table: torch.Tensor, t: Timestep) -> torch.Tensor:
        on_cpu = self._checked(t)
        if isinstance(t, int):
            return table[on_cpu]
        return to_device(table[on_cpu].view(-1, 1, 1, 1), t.device)

    def _checked(self, t: Timestep) -> Timestep:
        """`t` on the CPU, where the tables are; raises a ValueError for values outside -1..T-1."""
        if isinstance(t, int):
            values = [t]
        elif t.is_floating_point() or t.dtype == torch.bool:
            raise TypeError(f"Timesteps are integers, got a tensor of {t.dtype}: use t.long().")
        else:
            t = t.to("cpu", torch.int64)
            values = t.flatten().tolist()
        if wrong := [value for value in values if not -1 <= value < self.num_timesteps]:
            raise ValueError(f"Timesteps lie in -1..{self.num_timesteps - 1} (-1 is the clean image), got {wrong[0]}.")
        return t
