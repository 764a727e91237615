"""The top-down pass of VDVAE: latents, coarse to fine, become the features from which the likelihood is read.

Shape letters: B batch, W channels of the state, R its side, S the image's side, Z latent channels, L cells applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import Cell, CellOutput, Checkpointed, normalise_state
from .bottom_up import BlockSettings
from .layout import BlockSpec, module_specs
from .noise import Generators, draw_normals

Tensors = Sequence[torch.Tensor | None]
"""One tensor for every cell applied; None where there is none."""


@dataclass(frozen=True)
class Draws:
    """How the latents of a pass are chosen.

    Attributes
    ----------
    latents : sequence of (torch.Tensor or None), optional
        z of every cell applied, (B, Z, R, R). A cell without one draws its own.
    noise : sequence of (torch.Tensor or None), optional
        The standard draw_normals of every cell, (B, Z, R, R). A cell without them takes them from `generator`.
    generator : torch.Generator or sequence of them, optional
        One for all images, or one per image: then every image depends on its own generator alone.
    temperature : float or sequence of float
        The factor of the prior's scale: one number, or one per cell.
    """

    latents: Tensors | None = None
    noise: Tensors | None = None
    generator: Generators = None
    temperature: float | Sequence[float] = 1.0


@dataclass
class TopDownOutput:
    """What a top-down pass gives.

    Attributes
    ----------
    features : torch.Tensor
        (B, W, S, S), the input of the last convolution.
    latents : list of torch.Tensor
        z of every cell applied, (B, Z, R, R).
    kl : torch.Tensor
        (B, L), nats per image: KL(posterior | prior) of every cell applied; zero where z is not of the posterior.
    states : list of torch.Tensor
        The state after every cell, (B, W, R, R), if asked for; else empty.
    """

    features: torch.Tensor
    latents: list[torch.Tensor]
    kl: torch.Tensor
    states: list[torch.Tensor] = field(default_factory=list)


def stochastic_cells(num_cells: int, max_latent_blocks: int | None) -> list[bool]:
    """Which of the cells applied have latents: all, or at most `max_latent_blocks` that lie evenly among them.

    Examples
    --------
    >>> stochastic_cells(6, 3)
    [True, False, True, False, True, False]
    """
    if max_latent_blocks is None or max_latent_blocks >= num_cells:
        return [True] * num_cells
    chosen = {index * num_cells // max_latent_blocks for index in range(max_latent_blocks)}
    return [index in chosen for index in range(num_cells)]


class TopDown(Checkpointed):
    """The cells of the decoder, one after the other.

    Parameters
    ----------
    latent_channels : int
        Z.
    specs : sequence of BlockSpec
        As from `decoder_layout`.
    settings : BlockSettings
    no_bias_above : int
        Resolutions up to this one start from a learned state; finer ones start from zero.
    max_latent_blocks : int, optional
        See `stochastic_cells`.
    """

    def __init__(
        self,
        latent_channels: int,
        specs: Sequence[BlockSpec],
        settings: BlockSettings,
        no_bias_above: int,
        max_latent_blocks: int | None = None,
    ) -> None:
        super().__init__()
        self.specs, self.settings = tuple(specs), settings
        self.stochastic = stochastic_cells(len(specs), max_latent_blocks)
        drawing = {spec.module for spec, draws in zip(specs, self.stochastic) if draws}
        self.latent_channels = latent_channels
        self.cells = nn.ModuleList(
            Cell(
                settings.widths[spec.resolution],
                settings.inner_channels(spec.resolution),
                latent_channels,
                spec.resolution,
                len(specs) ** -0.5,
                spec.module in drawing,
                settings.residual,
            )
            for spec in module_specs(specs)
        )
        resolutions = sorted({spec.resolution for spec in specs})
        self.initial_states = nn.ParameterDict(
            {
                str(side): nn.Parameter(torch.zeros(1, settings.widths[side], side, side))
                for side in resolutions
                if side <= no_bias_above
            }
        )
        width = settings.widths[specs[-1].resolution]
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, width, 1, 1))

    @property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """(Z, R, R) of every cell applied."""
        return [(self.latent_channels, spec.resolution, spec.resolution) for spec in self.specs]

    def forward(
        self,
        batch_size: int,
        draws: Draws,
        activations: Mapping[int, torch.Tensor] | None = None,
        sampled_kl: bool = False,
        return_states: bool = False,
    ) -> TopDownOutput:
        """Run the pass.

        Parameters
        ----------
        batch_size : int
            B.
        draws : Draws
        activations : mapping of int to torch.Tensor, optional
            The encoder's: latents are drawn from the posterior, at temperature 1, and not from the prior.
        sampled_kl : bool
            Estimate every KL by log q(z) - log p(z) of the z that was drawn.
        return_states : bool
        """
        states = {int(side): start.expand(batch_size, -1, -1, -1) for side, start in self.initial_states.items()}
        temperatures = _one_per_cell("temperature", draws.temperature, len(self.specs))
        latents, kls, kept = [], [], []
        for index, spec in enumerate(self.specs):
            latent, noise = self._draw(index, batch_size, draws)
            activation = activations[spec.resolution] if activations is not None and self.stochastic[index] else None
            out: CellOutput = self.run(
                self.cells[spec.module],
                self._entering_state(states, spec, batch_size),
                activation,
                latent,
                noise,
                temperatures[index],
                sampled_kl,
            )
            states[spec.resolution] = normalise_state(out.state, self.settings.state_norm)
            latents.append(out.latent)
            kls.append(out.kl)
            if return_states:
                kept.append(states[spec.resolution])
        features = states[self.specs[-1].resolution] * self.gain + self.bias
        return TopDownOutput(features, latents, torch.stack(kls, dim=1), kept)

    def _entering_state(self, states: Mapping[int, torch.Tensor], spec: BlockSpec, batch_size: int) -> torch.Tensor:
        """The state that a cell begins with: that of its resolution, with a coarser one added where it says so."""
        side, width = spec.resolution, self.settings.widths[spec.resolution]
        state = states[side] if side in states else self.gain.new_zeros(batch_size, width, side, side)
        if spec.source is not None:
            state = state + F.interpolate(states[spec.source][:, :width], scale_factor=side // spec.source)
        return state

    def _draw(self, index: int, batch_size: int, draws: Draws) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The latent of a cell, or the noise to draw it with; neither for a cell that is not stochastic."""
        shape = (batch_size, *self.latent_shapes[index])
        latent = _one_of("latents", draws.latents, index, shape, len(self.specs))
        noise = _one_of("noise", draws.noise, index, shape, len(self.specs))
        if latent is None and noise is None and self.stochastic[index]:
            noise = draw_normals(shape, draws.generator, self.gain)
        return latent, noise if self.stochastic[index] else None


def _one_of(
    name: str, tensors: Tensors | None, index: int, shape: tuple[int, ...], num_cells: int
) -> torch.Tensor | None:
    """The tensor of one cell, checked."""
    if tensors is None:
        return None
    if len(tensors) != num_cells:
        raise ValueError(f"{name} needs one entry for each of {num_cells} cells, got {len(tensors)}.")
    tensor = tensors[index]
    if tensor is not None and tuple(tensor.shape) != shape:
        raise ValueError(f"{name}[{index}] must have the shape {shape}, got {tuple(tensor.shape)}.")
    return tensor


def _one_per_cell(name: str, value: float | Sequence[float], num_cells: int) -> list[float]:
    """One number per cell, checked."""
    values = [float(value)] * num_cells if isinstance(value, (int, float)) else [float(one) for one in value]
    if len(values) != num_cells:
        raise ValueError(f"{name} needs one number, or one for each of {num_cells} cells; got {len(values)}.")
    if not min(values) >= 0:
        raise ValueError(f"{name} must be at least 0, got {min(values)}.")
    return values
