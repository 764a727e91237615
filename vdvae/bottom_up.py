"""The bottom-up pass of VDVAE: an image becomes one activation per resolution.

Shape letters: B batch, C channels of the input, W channels of the state, R its side, S the image's side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import Block, Checkpointed, StateNorm, conv, normalise_state
from .layout import BlockSpec, module_specs


@dataclass(frozen=True)
class BlockSettings:
    """What all blocks of both passes share.

    Attributes
    ----------
    widths : mapping of int to int
        Resolution -> channels of the state.
    bottleneck_multiple : float
        The channels inside a block, in units of its width.
    state_norm : {"none", "unit", "rms"}
        How the state is normalised after every block; see `normalise_state`.
    residual : bool
        Whether a block is added to its input.
    """

    widths: Mapping[int, int]
    bottleneck_multiple: float
    state_norm: StateNorm
    residual: bool

    def inner_channels(self, resolution: int) -> int:
        """The channels inside the blocks of a resolution."""
        return int(self.widths[resolution] * self.bottleneck_multiple)


class BottomUp(Checkpointed):
    """The blocks of the encoder, one after the other.

    Parameters
    ----------
    in_channels : int
        C.
    specs : sequence of BlockSpec
        As from `encoder_layout`.
    settings : BlockSettings
    """

    def __init__(self, in_channels: int, specs: Sequence[BlockSpec], settings: BlockSettings) -> None:
        super().__init__()
        self.specs, self.settings = tuple(specs), settings
        widths, scale = settings.widths, len(specs) ** -0.5
        self.in_conv = conv(in_channels, widths[specs[0].resolution], kernel_size=3)
        self.blocks = nn.ModuleList(
            Block(
                widths[spec.resolution],
                settings.inner_channels(spec.resolution),
                widths[spec.resolution],
                spec.resolution,
                scale,
            )
            for spec in module_specs(specs)
        )

    def forward(
        self, x: torch.Tensor, return_states: bool = False
    ) -> tuple[dict[int, torch.Tensor], list[torch.Tensor]]:
        """Run the pass.

        Parameters
        ----------
        x : torch.Tensor
            (B, C, S, S).
        return_states : bool

        Returns
        -------
        activations : dict of int to torch.Tensor
            Resolution -> the last state there, (B, W, R, R). Where a block pools, its result belongs to the coarser
            resolution, so that the finer one keeps what entered that block.
        states : list of torch.Tensor
            The state after `in_conv` and after every block, if asked for; else empty.
        """
        x = self.in_conv(x)
        activations, states = {x.shape[-1]: x}, [x]
        for spec in self.specs:
            change = self.run(self.blocks[spec.module], x)
            x = x + change if self.settings.residual else change
            if spec.pool > 1:
                x = widen(F.avg_pool2d(x, spec.pool), self.settings.widths[spec.resolution // spec.pool])
            x = normalise_state(x, self.settings.state_norm)
            activations[x.shape[-1]] = x
            if return_states:
                states.append(x)
        return activations, states if return_states else []


def widen(x: torch.Tensor, width: int) -> torch.Tensor:
    """Zero channels appended until there are `width`; any floating dtype."""
    return F.pad(x, (0, 0, 0, 0, 0, width - x.shape[1])) if width > x.shape[1] else x
