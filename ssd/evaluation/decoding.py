"""Where the bound of the likelihood ends its chain, and how wide its last Gaussian is.

The bound holds for a chain to any timestep e of the finest level, at which the pixels are decoded from the prediction
(`ssd.process.likelihood.decoder_nll`). Below the noise of whole grey levels further steps only cost: a network that
does not know them pays one bit per dimension for every halving of the noise, and one that cannot copy what it sees far
more. So several ends are estimated, each with twice the noise of the next, and the one with the tightest bound counts.
Each has a width of its own. Ours.

Shape letters: B images, C channels, H W their size, W widths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from accelerate import PartialState

from ..process.likelihood import decoder_nll
from ..process.log_snr import half_log_snr
from ..process.scale_space import ScaleSpaceProcess
from ..seeding import numpy_generator, torch_generator
from .denoising import Denoiser
from .given_images import NumberedImages
from .processes import gather_list

DOUBLINGS = 6
"""How often the noise of the last possible end is doubled."""

FITTED_IMAGES, FITTED_PIXELS = 64, 4096
"""Of which, at most, widths are fitted: images of a process, and pixels of each."""

WIDTHS = torch.tensor([1.1**power for power in range(-8, 9)], dtype=torch.float64)
"""In units of the root mean square error."""


def possible_ends(process: ScaleSpaceProcess, chain: Sequence[int]) -> list[int]:
    """Timesteps of the chain at which it can end, descending: its last one, and those with 2, 4, .. times its noise.

    They are of the finest level, and from 0 to 6 doublings of sigma / a.

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> possible_ends(SSDScheduler(sample_size=16).process, range(999, -1, -1))
    [180, 93, 45, 20, 8, 2, 0]
    """
    finest = [t for t in chain if process.level(t) == 0]
    noise = {t: -half_log_snr(process, t) for t in finest}
    wanted = [noise[finest[-1]] + doublings * math.log(2) for doublings in range(DOUBLINGS, -1, -1)]
    nearest = [min(finest, key=lambda t: abs(noise[t] - value)) for value in wanted]
    return list(dict.fromkeys(nearest))


def end_error(
    denoiser: Denoiser,
    t: int,
    seed: int,
    x_0: torch.Tensor,
    numbers: Sequence[int],
    labels: Sequence[int] | None = None,
) -> torch.Tensor:
    """The error of the prediction at the end t, (B, C, H, W), from one x_t for every image: see its seed and number."""
    generators = [torch_generator(seed, "likelihood decoder", number, t) for number in numbers]
    return denoiser.error(x_0, -1, t, generators, labels)


def fitted_widths(
    denoiser: Denoiser, ends: Sequence[int], seed: int, images: NumberedImages, state: PartialState
) -> dict[int, float]:
    """The best standard deviation of the last Gaussian for every end, from some pixels of some images.

    Parameters
    ----------
    denoiser : Denoiser
    ends : sequence of int
    seed : int
    images : NumberedImages
        Those of this process; its first ones count.
    state : PartialState
    """
    found: dict[int, list[torch.Tensor]] = {end: [] for end in ends}
    seen = 0
    for batch in images:
        if seen >= FITTED_IMAGES:
            break
        seen += len(batch.x_0)
        pixels = _some_pixels(batch.x_0[0].numel())
        for end in ends:
            error = end_error(denoiser, end, seed, batch.x_0, batch.numbers, batch.labels)
            pairs = torch.stack([batch.x_0.cpu(), error.cpu()]).flatten(2)[:, :, pixels]
            found[end].append(pairs.flatten(1))
    together = {end: torch.cat(gather_list(parts, state), dim=1) for end, parts in found.items()}
    return {end: _best_width(x_0, error, images.grey_levels) for end, (x_0, error) in together.items()}


def _some_pixels(count: int) -> torch.Tensor:
    """Numbers of some of the `count` pixels of an image, the same ones for every image."""
    if count <= FITTED_PIXELS:
        return torch.arange(count)
    return torch.from_numpy(numpy_generator(0, "fitted pixels").choice(count, FITTED_PIXELS, replace=False))


def _best_width(x_0: torch.Tensor, error: torch.Tensor, grey_levels: int) -> float:
    """The width with the highest likelihood of pixels (N,) whose predictions have these errors (N,)."""
    x_0, error = x_0.double(), error.double()
    widths = WIDTHS * error.square().mean().sqrt().clamp(min=1e-6)
    nll = [float(decoder_nll(x_0[None], (x_0 - error)[None], float(width), grey_levels)) for width in widths]
    return float(widths[nll.index(min(nll))])
