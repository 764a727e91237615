"""The predictions of one chain that later steps extrapolate from: what second-order sampling remembers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..process.scale_space import ScaleSpaceProcess
from ..process.solver import earlier_timesteps, extrapolate


class Multistep:
    """Second-order sampling over one chain, see `ssd.process.solver`.

    At most two predictions are kept: that of the step before, and the one for the next change of the level.

    Parameters
    ----------
    process : ScaleSpaceProcess
    chain : sequence of int
        Its timesteps, descending.
    """

    def __init__(self, process: ScaleSpaceProcess, chain: Sequence[int]) -> None:
        self._process = process
        self._earlier = earlier_timesteps(process, chain)
        self._last_use = {u: t for t, u in self._earlier.items()}  # t falls: the last one stays
        self._predictions: dict[int, torch.Tensor] = {}

    def midpoint(self, clean: torch.Tensor, t: int, s: int) -> torch.Tensor:
        """The prediction of D_s x_0 in the middle of the step from t to s; of first order without an earlier one.

        Parameters
        ----------
        clean : torch.Tensor
            The prediction at t of `process.target`, (B, C, H, W); it is remembered for the steps that need it.
        t, s : int
            Neighbours of the chain.

        Raises
        ------
        ValueError
            When the prediction has another shape than those remembered, which are of other images.
        """
        x_hat = self._process.from_target(clean, s)
        u = self._earlier.get(t)
        earlier = None if u is None else self._predictions.get(u)
        self._predictions = {i: kept for i, kept in self._predictions.items() if self._last_use[i] < t}
        if t in self._last_use:
            self._predictions[t] = clean
        if u is None or earlier is None:
            return x_hat
        if earlier.shape[:2] != clean.shape[:2]:
            raise ValueError(
                f"The step from timestep {t} continues a chain of other images: their predictions are "
                f"{tuple(earlier.shape)}, this one is {tuple(clean.shape)}. Call set_timesteps before new images."
            )
        return extrapolate(self._process, x_hat, self._process.from_target(earlier, t), u, t, s)
