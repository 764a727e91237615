"""How VDVAE's top-down pass begins at every level: at a point mass of the details, which the first cell spreads.

The state that enters resolution R from a coarser one is

    X[R] = bias[R] + nearest(X[coarser]),        details(X[R]) = details(bias[R]),

with details the part finer than the coarser pixels (`ssd.operators.haar`): nearest-neighbour enlarging adds none. So
the details begin at one point, the same for all images, as theorem 5 of arXiv:2301.08187 says; the point is the learned
bias's, which is 0 in a new network only. At the coarsest level the whole state is the bias, and all of it counts as
details.

Shape letters: B images, W channels of the state, R its side, Z latent channels, L cells applied.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from vdvae import VDVAEModel

from ..commands.errors import UsageError
from ..operators import haar


@dataclass(frozen=True)
class Level:
    """One resolution of the top-down pass.

    Attributes
    ----------
    resolution : int
    source : int, optional
        The resolution that its state comes from; None for the coarsest.
    cells : list of int
        The numbers of its cells, in the order in which they are applied.
    """

    resolution: int
    source: int | None
    cells: list[int]

    def details(self, state: torch.Tensor) -> torch.Tensor:
        """What a state (.., R, R) has beside its means over the coarser level's pixels."""
        if self.source is None:
            return state
        return state - haar.project(state, (self.resolution // self.source).bit_length() - 1)


def levels_of(model: VDVAEModel) -> list[Level]:
    """The levels in the order in which they are entered.

    Raises
    ------
    UsageError
        Where a level is not a power of two times as fine as its source: then there is no Haar basis.

    Examples
    --------
    >>> [(level.resolution, level.source, level.cells) for level in levels_of(
    ...     VDVAEModel(4, 1, "4x1,4d2,2x1", "2x1r2,4m2,4x1", width=8, latent_channels=2, num_mixtures=2))]
    [(2, None, [0, 1]), (4, 2, [2, 3])]
    """
    sides = [spec.resolution for spec in model.cells]
    levels = []
    for resolution in dict.fromkeys(sides):
        cells = [index for index, side in enumerate(sides) if side == resolution]
        source = model.cells[cells[0]].source
        if source is not None and (resolution // source).bit_count() != 1:
            raise UsageError(
                f"Details are measured in a Haar basis, for levels that are 2, 4, 8, .. times as fine as their source; "
                f"this model goes from {source} to {resolution} pixels."
            )
        levels.append(Level(resolution, source, cells))
    return levels


def bias_of(model: VDVAEModel, level: Level) -> torch.Tensor:
    """The learned state of a level before anything is added, (W, R, R); zeros where the model has none."""
    states = model.decoder.initial_states
    if str(level.resolution) in states:
        return states[str(level.resolution)].detach()[0]
    width = model.decoder.settings.widths[level.resolution]
    return torch.zeros(width, level.resolution, level.resolution, device=model.device)


@contextmanager
def recorded_entries(model: VDVAEModel) -> Iterator[list[torch.Tensor]]:
    """Inside, a list fills with the state (B, W, R, R) that enters each cell applied."""
    entries: list[torch.Tensor] = []

    def record(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        entries.append(inputs[0].detach())

    handles = [cell.register_forward_pre_hook(record) for cell in model.decoder.cells]
    try:
        yield entries
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class DetailMoments:
    """Moments of details over images, around a fixed point, in float64.

    Attributes
    ----------
    centre : torch.Tensor
        (W, R, R): the point, for which the bias's details are taken.
    """

    centre: torch.Tensor
    count: int = 0
    farthest: float = 0.0
    _energy: float = 0.0
    _sum: torch.Tensor = field(init=False)
    _squares: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._sum, self._squares = (torch.zeros_like(self.centre, dtype=torch.float64) for _ in range(2))

    def add(self, details: torch.Tensor) -> None:
        """Add details (B, W, R, R)."""
        values = details.double()
        shifted = values - self.centre.double()
        self.count += len(values)
        self.farthest = max(self.farthest, float(shifted.abs().max()))
        self._energy += float(values.square().mean(dim=(1, 2, 3)).sum())
        self._sum += shifted.sum(dim=0)
        self._squares += shifted.square().sum(dim=0)

    @property
    def energy(self) -> float:
        """The mean square, over images and elements."""
        return self._energy / self.count

    @property
    def spread(self) -> float:
        """The root of the variance over images, averaged over elements."""
        variances = (self._squares - self._sum.square() / self.count) / (self.count - 1)
        return float(variances.mean().clamp(min=0).sqrt())


Function = Callable[..., tuple[torch.Tensor, ...]]


def gains(function: Function, noise: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """How results move with the length of the noise, by one Jacobian-vector product.

    With u = noise / |noise|, an image's own direction, and J the Jacobian of a result Z there,

        gain = |J u|,        d|Z| / d|noise| = <Z, J u> / |Z|.

    For random directions the mean of gain^2 is |J|_F^2 over the number of elements of the noise. For Z = c noise, and
    for c times any rotation of it, both are c.

    Parameters
    ----------
    function : callable
        Tensors like `noise` -> tensors (B, ..), every image on its own.
    noise : sequence of torch.Tensor
        (B, ..) each.

    Returns
    -------
    list of (torch.Tensor, torch.Tensor)
        For every result both numbers, (B,) each.

    Examples
    --------
    >>> [(gain, radial)] = gains(lambda e: (-3 * e,), [torch.tensor([[3.0, 4.0]])])
    >>> round(float(gain), 5), round(float(radial), 5)
    (3.0, 3.0)
    """
    length = _length(noise)
    directions = tuple(part / _beside(length, part) for part in noise)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PyTorch's own use of torch.jit, at the first call
        pair = torch.func.jvp(function, tuple(noise), directions)
    found = []
    for z, dz in zip(pair[0], pair[1]):
        inner = (z.flatten(1) * dz.flatten(1)).sum(dim=1)
        found.append((_length([dz]), inner / _length([z])))
    return found


def _length(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.flatten(1) for part in parts], dim=1).norm(dim=1)


def _beside(length: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    return length.view(-1, *[1] * (part.ndim - 1))


def level_gains(
    model: VDVAEModel, level: Level, noise: Sequence[torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]] | None:
    """`gains` of the noise of all cells of a level, in the pass from the prior.

    Parameters
    ----------
    model : VDVAEModel
    level : Level
    noise : sequence of torch.Tensor
        Of all cells applied.

    Returns
    -------
    list or None
        Of the state after the level and of the state after the last cell; None where no cell of the level has latents.
    """
    drawing = [cell for cell in level.cells if model.decoder.stochastic[cell]]
    if not drawing:
        return None

    def states(*of_level: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = list(noise)
        for cell, part in zip(drawing, of_level):
            given[cell] = part
        kept = model.decode(noise=given, return_states=True).states
        return kept[level.cells[-1]], kept[-1]

    return gains(states, [noise[cell] for cell in drawing])
