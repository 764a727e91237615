"""Bits per dimension: the variational bound of held-out images, estimated from few draws.

Equations in `ssd.process.likelihood`. The bound is a sum over the steps of a chain. Neighbouring terms are alike, so
that one step of every stretch of neighbours, drawn anew for every image and counted for all of them, estimates the sum
without bias and with little variance. Steps at which the level changes are drawn always.

Shape letters: B images, C channels, H W their size.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Literal

import numpy as np
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from ..commands.errors import UsageError
from ..pipeline_ssd import SSDPipeline
from ..process.likelihood import decoder_nll, prior_kl, step_kl
from ..process.log_snr import half_log_snr
from ..process.scale_space import ScaleSpaceProcess
from ..scheduling_ssd import SSDScheduler
from ..seeding import torch_generator
from .denoising import Denoiser
from .given_images import GivenImages, NumberedImages
from .processes import gather_list

Step = tuple[int, int]
"""(t, s)."""


def stretches(process: ScaleSpaceProcess, chain: Sequence[int], draws: int) -> list[list[Step]]:
    """The steps of a chain in at most about `draws` stretches of neighbours; a change of the level is its own.

    Within a level the stretches are about even in the log-SNR, over which the terms of the bound are spread: at little
    noise a step is a stretch, at much noise many are.

    Parameters
    ----------
    process : ScaleSpaceProcess
    chain : sequence of int
        Descending; the last step, to the clean image, is not among the stretches.
    draws : int
        At least 1.

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> process = SSDScheduler(sample_size=16, num_levels=2).process
    >>> stretches(process, [999, 900, 750, 600, 300, 100, 0], 5)
    [[(999, 900), (900, 750)], [(750, 600)], [(600, 300), (300, 100)], [(100, 0)]]
    """
    known = {t: half_log_snr(process, t) for t in chain}
    width = (known[chain[-1]] - known[chain[0]]) / max(draws - len(process.required_timesteps), 1)

    def key(step: Step) -> tuple[int, int, int]:
        t, s = step
        return process.level(t), process.level(s), math.ceil((known[s] - known[chain[0]]) / width - 1e-9)

    return [list(group) for _, group in groupby(pairwise(chain), key=key)]


@dataclass(frozen=True, kw_only=True)
class LikelihoodSettings:
    """How the bound is estimated.

    Parameters
    ----------
    steps : int
        The number of steps of the chain whose bound is estimated. More are tighter, at no cost.
    draws : int
        About how many predictions are made per image. More give a smaller standard error.
    covariance : {"auto", "theorem3", "calibrated"}
        The uncertainty of a step: theorem 3's, which is sampled with, or that and the residuals that
        `ssd.evaluation.calibrate` measured. The default takes them where there are any.
    """

    steps: int = 1000
    draws: int = 50
    covariance: Literal["auto", "theorem3", "calibrated"] = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "draws"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} must be at least 1, got {getattr(self, name)}.")

    def chain(self, scheduler: SSDScheduler) -> list[int]:
        """Timesteps, descending, about even in the log-SNR."""
        even = SSDScheduler.from_config(scheduler.config, timestep_spacing="logsnr")
        try:
            even.set_timesteps(self.steps)
        except ValueError as error:
            raise UsageError(f"--steps {self.steps} does not fit this model: {error}") from error
        return even.timesteps.tolist()

    def calibrated(self, scheduler: SSDScheduler) -> bool:
        """Whether the calibration of the scheduler is used."""
        if self.covariance == "calibrated" and scheduler.residuals is None:
            raise UsageError(
                "--covariance calibrated needs a calibration of this model: make one with  "
                "python -m ssd.evaluation.calibrate --model FOLDER --data DATA."
            )
        return self.covariance != "theorem3" and scheduler.residuals is not None


@dataclass(frozen=True, kw_only=True)
class LikelihoodConfig(GivenImages, LikelihoodSettings):
    """Settings of `sample/eval_nll.py`.

    Parameters
    ----------
    out : str, optional
        A .json file for the numbers.
    """

    num: int = 1000
    out: str | None = None

    def __post_init__(self) -> None:
        GivenImages.__post_init__(self)
        LikelihoodSettings.__post_init__(self)


@dataclass(frozen=True)
class LikelihoodBound:
    """The bound of one chain for one network.

    Attributes
    ----------
    denoiser : Denoiser
    chain : sequence of int
        Descending timesteps.
    draws : int
        About how many predictions are made per image.
    calibrated : bool
        Whether p has the variances of the scheduler's calibration, equation (b).
    width : float
        The standard deviation of the last step's Gaussian, in pixel values of [-1, 1].
    seed : int
        Of the draws: those of an image depend on the seed and on its number alone.
    """

    denoiser: Denoiser
    chain: Sequence[int]
    draws: int
    calibrated: bool
    width: float
    seed: int = 0

    def __call__(
        self, x_0: torch.Tensor, numbers: Sequence[int], labels: Sequence[int] | None = None
    ) -> dict[str, torch.Tensor]:
        """The parts of the bound: name -> (B,), float64, nats.

        Parameters
        ----------
        x_0 : torch.Tensor
            Images of 8 bits as float32 in [-1, 1], (B, C, H, W), on the denoiser's device.
        numbers : sequence of int
            Their numbers.
        labels : sequence of int, optional
            Their classes, for class-conditional models.
        """
        process = self.denoiser.process
        parts: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(len(x_0), dtype=torch.float64))
        parts["prior"] = prior_kl(process, x_0.cpu(), self.chain[0])
        for index, stretch in enumerate(stretches(process, self.chain, self.draws)):
            t, s = stretch[0] if len(stretch) == 1 else self._choose(stretch, index, numbers)
            generators = [torch_generator(self.seed, "likelihood noise", number, index) for number in numbers]
            error = self.denoiser.error(x_0, s, t, generators, labels).cpu()
            table = self.denoiser.scheduler.residuals if self.calibrated else None
            variances = None if table is None else table.error_variances(s, t)
            parts[_name(process, *stretch[0])] += len(stretch) * step_kl(process, error, s, t, variances)
        parts["decoder"] = self._decoder(x_0, numbers, labels)
        return dict(parts)

    def _choose(self, stretch: Sequence[Step], index: int, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of the stretch for every image: t and s, (B,)."""
        drawn = [
            int(torch.randint(len(stretch), (), generator=torch_generator(self.seed, "likelihood step", number, index)))
            for number in numbers
        ]
        t, s = torch.tensor([stretch[i] for i in drawn]).unbind(dim=1)
        return t, s

    def _decoder(self, x_0: torch.Tensor, numbers: Sequence[int], labels: Sequence[int] | None) -> torch.Tensor:
        error = last_error(self.denoiser, self.chain, self.seed, x_0, numbers, labels).cpu()
        return decoder_nll(x_0.cpu(), x_0.cpu() - error, self.width)


def last_error(
    denoiser: Denoiser,
    chain: Sequence[int],
    seed: int,
    x_0: torch.Tensor,
    numbers: Sequence[int],
    labels: Sequence[int] | None = None,
) -> torch.Tensor:
    """The error of the prediction of the last step: (B, C, H, W)."""
    generators = [torch_generator(seed, "likelihood decoder", number) for number in numbers]
    return denoiser.error(x_0, -1, chain[-1], generators, labels)


def _name(process: ScaleSpaceProcess, t: int, s: int) -> str:
    """The part that a step belongs to: the level of both, or the change between two sizes."""
    (height, width), (small_height, small_width) = process.size(s), process.size(t)
    if process.level(t) == process.level(s):
        return f"within_{height}x{width}"
    return f"change_{small_height}x{small_width}_to_{height}x{width}"


def estimate_bits_per_dim(
    pipeline: SSDPipeline, images: NumberedImages, settings: LikelihoodSettings, seed: int, state: PartialState
) -> dict[str, Any]:
    """Bits per dimension of images, estimated by all processes together: the numbers of a report.

    Parameters
    ----------
    pipeline : SSDPipeline
    images : NumberedImages
        Those of this process.
    settings : LikelihoodSettings
    seed : int
        Of the draws.
    state : PartialState
    """
    denoiser = Denoiser(pipeline)
    calibrated = settings.calibrated(denoiser.scheduler)
    chain = settings.chain(denoiser.scheduler)
    width = _fitted_width(denoiser, chain, seed, images, state)
    bound = LikelihoodBound(denoiser, chain, settings.draws, calibrated, width, seed)
    parts, grey = [], True
    with tqdm(total=len(images), desc="likelihood", unit=" images", disable=not state.is_main_process) as progress:
        for batch in images:
            parts.append(bound(batch.x_0, batch.numbers, batch.labels))
            grey &= bool((batch.x_0 == batch.x_0[:, :1]).all())
            progress.update(len(batch.x_0))
    parts, grey = gather_list(parts, state), all(gather_list([grey], state))
    channels = 1 if grey else pipeline.unet.config.in_channels
    height, width_ = denoiser.process.size(-1)
    return {
        **summarise(parts, height * width_, channels),
        "bits_per_dim_images": sum(len(part["prior"]) for part in parts),
        "bits_per_dim_dimensions": height * width_ * channels,
        "bits_per_dim_steps": len(chain),
        "bits_per_dim_draws": len(stretches(denoiser.process, chain, settings.draws)) + 1,
        "bits_per_dim_covariance": "calibrated" if calibrated else "theorem 3",
        "bits_per_dim_decoder_width": width,
    }


def _fitted_width(
    denoiser: Denoiser, chain: Sequence[int], seed: int, images: NumberedImages, state: PartialState
) -> float:
    """The root mean square error of the last prediction: one number, the best width of the last step's Gaussian.

    The bound makes these predictions again, the same ones: kept, they would be as large as all images.
    """
    squares = [
        (float(last_error(denoiser, chain, seed, b.x_0, b.numbers, b.labels).double().square().sum()), b.x_0.numel())
        for b in images
    ]
    total, count = (sum(values) for values in zip(*gather_list(squares, state)))
    return math.sqrt(total / count)


def summarise(parts: Iterable[dict[str, torch.Tensor]], pixels: int, channels: int) -> dict[str, float]:
    """Bits per dimension of all images, with their standard error, and of every part.

    Parameters
    ----------
    parts : iterable of dict
        What `LikelihoodBound` gave, batch by batch.
    pixels, channels : int
        Of an image; their product is the number of dimensions.
    """
    together: dict[str, np.ndarray] = {}
    batches = list(parts)
    for name in batches[0]:
        together[name] = torch.cat([batch[name] for batch in batches]).numpy() / (math.log(2) * pixels * channels)
    total = np.sum(list(together.values()), axis=0)
    error = total.std(ddof=1) / math.sqrt(len(total)) if len(total) > 1 else math.nan
    numbers = {"bits_per_dim": float(total.mean()), "bits_per_dim_standard_error": float(error)}
    return numbers | {f"bits_per_dim_{name}": float(values.mean()) for name, values in together.items()}
