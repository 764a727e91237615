"""Bits per dimension: the variational bound of held-out images, estimated from few draws.

Equations in `ssd.process.likelihood`. The bound is a sum over the steps of a chain. Neighbouring terms are alike, so
that one step of every stretch of neighbours, drawn anew for every image and counted for all of them, estimates the sum
without bias and with little variance. Steps at which the level changes are drawn always. The chain may end at several
timesteps (`decoding`), of which the one with the tightest bound counts.

Shape letters: B images, C channels, H W their size.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Literal, NamedTuple

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
from .decoding import end_error, fitted_widths, possible_ends
from .denoising import Denoiser
from .given_images import NumberedImages
from .processes import gather_list

Step = tuple[int, int]
"""(t, s)."""


def stretches(
    process: ScaleSpaceProcess, chain: Sequence[int], draws: int, ends: Sequence[int] = ()
) -> list[list[Step]]:
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
    ends : sequence of int
        Timesteps of the chain at which it may end: no stretch goes across one.

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> process = SSDScheduler(sample_size=16, num_levels=2).process
    >>> stretches(process, [999, 900, 750, 600, 300, 100, 0], 5)
    [[(999, 900), (900, 750)], [(750, 600)], [(600, 300), (300, 100)], [(100, 0)]]
    """
    known = {t: half_log_snr(process, t) for t in chain}
    width = (known[chain[-1]] - known[chain[0]]) / max(draws - len(process.required_timesteps), 1)

    def key(step: Step) -> tuple[int, int, int, int]:
        t, s = step
        stretch = math.ceil((known[s] - known[chain[0]]) / width - 1e-9)
        return process.level(t), process.level(s), _ends_before(step, ends), stretch

    return [list(group) for _, group in groupby(pairwise(chain), key=key)]


def _ends_before(step: Step, ends: Sequence[int]) -> int:
    """How many ends a step lies behind."""
    return sum(step[0] <= end for end in ends)


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
    last_timestep : int, optional
        Where the chain ends, in the finest level. Default: of seven ends, each with twice the noise of the one before,
        the one with the tightest bound.
    """

    steps: int = 1000
    draws: int = 50
    covariance: Literal["auto", "theorem3", "calibrated"] = "auto"
    last_timestep: int | None = None

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
        chain: list[int] = even.timesteps.tolist()
        last = self.last_timestep
        if last is None:
            return chain
        finest = even.process.shared_timesteps(0)
        if last not in finest:
            raise UsageError(
                f"--last_timestep must be of the finest level, {finest[0]}..{finest[-1]} for this model, got {last}."
            )
        return [t for t in chain if t > last] + [last]

    def ends(self, process: ScaleSpaceProcess, chain: Sequence[int]) -> list[int]:
        """The timesteps at which the chain may end."""
        return possible_ends(process, chain) if self.last_timestep is None else [self.last_timestep]

    def calibrated(self, scheduler: SSDScheduler) -> bool:
        """Whether the calibration of the scheduler is used."""
        if self.covariance == "calibrated" and scheduler.residuals is None:
            raise UsageError(
                "--covariance calibrated needs a calibration of this model: make one with  "
                "python -m ssd.evaluation.calibrate --model FOLDER --data DATA."
            )
        return self.covariance != "theorem3" and scheduler.residuals is not None


class BoundTerms(NamedTuple):
    """The bound of a batch for every end of its chain, in nats.

    Attributes
    ----------
    parts : dict
        Name -> (B,), float64: what all ends share.
    tails : torch.Tensor
        (B, E), float64, the steps between the first end and every end.
    decoders : torch.Tensor
        (B, E), float64, the pixels from the prediction at every end.
    """

    parts: dict[str, torch.Tensor]
    tails: torch.Tensor
    decoders: torch.Tensor

    def at(self, end: int, within: str) -> dict[str, torch.Tensor]:
        """All parts for end number `end`: name -> (B,); `within` is the name of the finest level's part."""
        finest = self.parts.get(within, 0.0) + self.tails[:, end]
        return self.parts | {within: finest, "decoder": self.decoders[:, end]}


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
    widths : mapping of int to float
        The ends of the chain, descending, and the standard deviation of the last Gaussian at each, in pixel values of
        [-1, 1].
    seed : int
        Of the draws: those of an image depend on the seed and on its number alone.
    grey_levels : int
        Of the images.
    """

    denoiser: Denoiser
    chain: Sequence[int]
    draws: int
    calibrated: bool
    widths: Mapping[int, float]
    seed: int = 0
    grey_levels: int = 256

    @property
    def stretches(self) -> list[list[Step]]:
        """Those of which one step each is drawn."""
        return stretches(self.denoiser.process, self.chain, self.draws, list(self.widths))

    def __call__(self, x_0: torch.Tensor, numbers: Sequence[int], labels: Sequence[int] | None = None) -> BoundTerms:
        """The terms of the bound.

        Parameters
        ----------
        x_0 : torch.Tensor
            Images of the grey levels as float32 in [-1, 1], (B, C, H, W), on the denoiser's device.
        numbers : sequence of int
            Their numbers.
        labels : sequence of int, optional
            Their classes, for class-conditional models.
        """
        process, ends = self.denoiser.process, list(self.widths)
        parts: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(len(x_0), dtype=torch.float64))
        parts["prior"] = prior_kl(process, x_0.cpu(), self.chain[0])
        between = torch.zeros(len(x_0), len(ends), dtype=torch.float64)
        for index, stretch in enumerate(self.stretches):
            kl = self._kl(stretch, index, x_0, numbers, labels)
            if behind := _ends_before(stretch[0], ends):
                between[:, behind] += kl
            else:
                parts[_name(process, *stretch[0])] += kl
        decoders = [self._decoder(end, x_0, numbers, labels) for end in ends]
        return BoundTerms(dict(parts), between.cumsum(dim=1), torch.stack(decoders, dim=1))

    def _kl(
        self,
        stretch: Sequence[Step],
        index: int,
        x_0: torch.Tensor,
        numbers: Sequence[int],
        labels: Sequence[int] | None,
    ) -> torch.Tensor:
        """The terms of a stretch, (B,), from one of its steps for every image."""
        t, s = stretch[0] if len(stretch) == 1 else self._choose(stretch, index, numbers)
        generators = [torch_generator(self.seed, "likelihood noise", number, index) for number in numbers]
        error = self.denoiser.error(x_0, s, t, generators, labels).cpu()
        table = self.denoiser.scheduler.residuals if self.calibrated else None
        variances = None if table is None else table.error_variances(s, t)
        return len(stretch) * step_kl(self.denoiser.process, error, s, t, variances)

    def _choose(self, stretch: Sequence[Step], index: int, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of the stretch for every image: t and s, (B,)."""
        drawn = [
            int(torch.randint(len(stretch), (), generator=torch_generator(self.seed, "likelihood step", number, index)))
            for number in numbers
        ]
        t, s = torch.tensor([stretch[i] for i in drawn]).unbind(dim=1)
        return t, s

    def _decoder(
        self, end: int, x_0: torch.Tensor, numbers: Sequence[int], labels: Sequence[int] | None
    ) -> torch.Tensor:
        error = end_error(self.denoiser, end, self.seed, x_0, numbers, labels).cpu()
        return decoder_nll(x_0.cpu(), x_0.cpu() - error, self.widths[end], self.grey_levels)


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
    ends = settings.ends(denoiser.process, chain)
    widths = fitted_widths(denoiser, ends, seed, images, state)
    bound = LikelihoodBound(denoiser, chain, settings.draws, calibrated, widths, seed, images.grey_levels)
    terms, grey = [], True
    title, quiet = "likelihood", not state.is_main_process
    with tqdm(total=len(images), desc=title, unit=" images", leave=False, disable=quiet) as progress:
        for batch in images:
            terms.append(bound(batch.x_0, batch.numbers, batch.labels))
            grey &= bool((batch.x_0 == batch.x_0[:, :1]).all())
            progress.update(len(batch.x_0))
    terms, grey = gather_list(terms, state), all(gather_list([grey], state))
    best = tightest_end(terms)
    within = _name(denoiser.process, ends[-1], ends[-1])
    channels = 1 if grey else pipeline.unet.config.in_channels
    height, width = denoiser.process.size(-1)
    return {
        **summarise([each.at(best, within) for each in terms], height * width, channels),
        "bits_per_dim_images": sum(len(each.tails) for each in terms),
        "bits_per_dim_dimensions": height * width * channels,
        "bits_per_dim_grey_levels": images.grey_levels,
        "bits_per_dim_steps": sum(t >= ends[best] for t in chain),
        "bits_per_dim_draws": len(bound.stretches) + len(ends),
        "bits_per_dim_covariance": "calibrated" if calibrated else "theorem 3",
        "bits_per_dim_last_timestep": ends[best],
        "bits_per_dim_decoder_width": widths[ends[best]],
    }


def tightest_end(terms: Sequence[BoundTerms]) -> int:
    """The number of the end with the smallest bound, on average over all images.

    Examples
    --------
    >>> tails, decoders = torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[4.0, 2.0, 1.0]])
    >>> tightest_end([BoundTerms({}, tails, decoders)])
    1
    """
    return int(torch.cat([each.tails + each.decoders for each in terms]).mean(dim=0).argmin())


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
