"""How wrong a network's predictions are, measured: the variance of D_s x_0 - x_hat per band of cosine frequencies.

A network predicts a mean, which lacks the spread of what it does not know. The table has that spread, so that a sampler
can add it (`ResidualNoise`) and a likelihood can count with it. `ssd.evaluation.calibrate` measures it. Ours.

Shape letters: B images; K bands; H W the size of the prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..operators.cosine_bands import NUM_BANDS, cosine_bands
from ..operators.cosine_filter import cosine_basis
from ..operators.linear import IdentityOperator
from ..operators.spectral import SpectralCovariance, SpectralForm
from .diffusion import Timestep
from .likelihood import ErrorVariances
from .log_snr import half_log_snr
from .scale_space import ScaleSpaceProcess

SMALLEST = 1e-12
"""The least variance, also of a band that has no frequency at its size; logarithms need one."""

KINDS = ("none", "null_space", "change", "all")


@dataclass(frozen=True)
class AtChange:
    """The residual where the level changes.

    Attributes
    ----------
    bands : torch.Tensor
        Its variance per band of cosine frequencies, (K,).
    rows : torch.Tensor
        Its variance in the row space of D_st, per band of the singular directions, (K,).
    null : torch.Tensor
        Its variance in the null space, ().
    """

    bands: torch.Tensor
    rows: torch.Tensor
    null: torch.Tensor


class ResidualTable:
    """Measured variances of a network's residuals.

    Parameters
    ----------
    process : ScaleSpaceProcess
    within : sequence of mapping
        Per level {timestep: K variances}, measured within the level.
    changes : mapping
        {timestep: `AtChange`} for every change of the level.

    Raises
    ------
    ValueError
        When the table does not fit the process.
    """

    def __init__(
        self,
        process: ScaleSpaceProcess,
        within: Sequence[Mapping[int, torch.Tensor]],
        changes: Mapping[int, AtChange],
    ) -> None:
        _check(process, within, changes)
        self.process, self.within, self.changes = process, within, changes
        # By rising log-SNR, that is by falling t.
        falling = [sorted(row, reverse=True) for row in within]
        self._log_snr = [torch.tensor([half_log_snr(process, t) for t in ts], dtype=torch.float64) for ts in falling]
        self._log = [
            torch.stack([row[t].double().clamp(min=SMALLEST).log() for t in ts]) for row, ts in zip(within, falling)
        ]

    @classmethod
    def from_config(cls, process: ScaleSpaceProcess, config: Mapping[str, Any]) -> ResidualTable:
        """From what `to_config` gave, after a trip through JSON."""
        try:
            within = [{int(t): torch.tensor(values) for t, values in row.items()} for row in config["within"]]
            changes = {
                int(t): AtChange(*(torch.tensor(row[name], dtype=torch.float64) for name in ("bands", "rows", "null")))
                for t, row in config["changes"].items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"This is not a calibration: {error!r}. Make one with ssd.evaluation.calibrate."
            ) from error
        return cls(process, within, changes)

    def to_config(self) -> dict[str, Any]:
        """Plain numbers, for a scheduler's configuration."""
        return {
            "within": [{str(t): _rounded(values) for t, values in row.items()} for row in self.within],
            "changes": {
                str(t): {"bands": _rounded(c.bands), "rows": _rounded(c.rows), "null": _rounded(c.null)}
                for t, c in self.changes.items()
            },
        }

    def bands(self, t: Timestep) -> torch.Tensor:
        """Variances of the prediction within the level of t, per band: (K,), or (B, K); log r is linear in l_t."""
        grid, log = self._log_snr[self.process.level(t)], self._log[self.process.level(t)]
        noise = self.process.noise
        at = torch.as_tensor(t).cpu()
        l_t = (noise.signal[at].log() - noise.sigma[at].log()).clamp(grid[0], grid[-1])
        right = torch.searchsorted(grid, l_t).clamp(1, len(grid) - 1) if len(grid) > 1 else torch.zeros_like(at)
        left = (right - 1).clamp(min=0)
        share = ((l_t - grid[left]) / (grid[right] - grid[left]).clamp(min=SMALLEST)).unsqueeze(-1)
        return torch.lerp(log[left], log[right], share).exp()

    def error_variances(self, s: Timestep, t: Timestep) -> ErrorVariances:
        """r_i of the step from t to s, for `ssd.process.likelihood.step_kl`."""
        if self.process.level(s) == self.process.level(t):
            size = self.process.size(s)
            rows = self.bands(t)[..., cosine_bands(size)]
            return ErrorVariances(rows if rows.ndim == 2 else rows.unsqueeze(1), torch.zeros((), dtype=torch.float64))
        spectral, found = self.process.operator(s, t).spectral, self.changes[int(t)]
        assert isinstance(spectral, SpectralForm), "checked by the table"
        ranks = spectral.singular_values.shape
        return ErrorVariances(found.rows[cosine_bands((ranks[0], ranks[1]))], found.null)

    def noise(self, kind: str, s: int, t: int, white: torch.Tensor) -> torch.Tensor:
        """What a sampler adds to the prediction of D_s x_0: white noise (B, C, H, W), coloured.

        Parameters
        ----------
        kind : {"null_space", "change", "all"}
            In the null space of D_st, which there is at level changes; or in all directions.
        s, t : int
            A step that `adds_noise`.
        white : torch.Tensor
            (B, C, H, W).
        """
        changes = self.process.level(s) != self.process.level(t)
        size = self.process.size(s)
        variances = (self.changes[t].bands if changes else self.bands(t))[cosine_bands(size)]
        nothing = torch.zeros(1, 1, dtype=torch.float64)
        coloured = SpectralCovariance(cosine_basis(size), variances, nothing, size).sqrt_apply(white)
        if kind != "null_space":
            return coloured
        rows = self.process.operator(s, t).spectral.covariance(lambda lam: (lam > 0).double())
        return coloured - rows.apply(coloured)


def adds_noise(process: ScaleSpaceProcess, kind: str, s: int, t: int) -> bool:
    """Whether a sampler of this kind adds noise to the prediction at this step: never at the last one, whose result
    stays as it was predicted.
    """
    changes = process.level(s) != process.level(t)
    return s != -1 and (kind == "all" or (kind in ("null_space", "change") and changes))


def _check(
    process: ScaleSpaceProcess, within: Sequence[Mapping[int, torch.Tensor]], changes: Mapping[int, AtChange]
) -> None:
    fits = (
        len(within) == len(process.resolution.resolutions)
        and all(process.level(t) == level for level, row in enumerate(within) for t in row)
        and all(row and all(values.shape == (NUM_BANDS,) for values in row.values()) for row in within)
        and set(changes) == set(process.required_timesteps)
        and all(c.bands.shape == c.rows.shape == (NUM_BANDS,) and c.null.shape == () for c in changes.values())
    )
    if not fits:
        raise ValueError(
            "The calibration was made for another schedule: measure it again with ssd.evaluation.calibrate."
        )
    for t in changes:
        operator = process.operator(t - 1, t)
        if not isinstance(operator.spectral, SpectralForm) or isinstance(operator, IdentityOperator):
            raise ValueError(f"A calibration needs operators with closed-form spectra, got {operator!r}.")


def _rounded(values: torch.Tensor) -> Any:
    """Six digits, which is more than was measured."""
    if values.ndim:
        return [_rounded(value) for value in values]
    return float(f"{float(values):.6g}")
