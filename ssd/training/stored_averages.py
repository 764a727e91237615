"""Power-function averages of a run on disk: one file for every width at every save, `averages/`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..commands.errors import UsageError
from ..commands.files import whole_file
from .ema import EmaNetworks
from .power_average import Profile, exponent_of

FOLDER = "averages"


@dataclass(frozen=True)
class StoredAverage:
    """A file of weights.

    Attributes
    ----------
    path : pathlib.Path
    step : int
        At which it was stored.
    profile : Profile
    """

    path: Path
    step: int
    profile: Profile

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights by their names, on the CPU."""
        with safe_open(self.path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)


def store_averages(ema: EmaNetworks, out: Path, step: int) -> None:
    """Write the power-function averages of a run as they are now; an earlier file of this step is replaced."""
    for width, network in zip(ema.widths, ema.of_widths):
        described = {"width": repr(width), "updates": str(ema.updates), "step": str(step)}
        weights = {name: weight.detach().cpu().contiguous() for name, weight in network.named_parameters()}
        with whole_file(out / FOLDER / f"step_{step:08d}_width_{width:g}.safetensors", sync=True) as temporary:
            save_file(weights, temporary, described)


def stored_averages(run: Path) -> list[StoredAverage]:
    """All averages that a run has stored, by step and width.

    Raises
    ------
    UsageError
        For a run without any, and for a damaged file.
    """
    found = [_described(path) for path in sorted((run / FOLDER).glob("step_*.safetensors"))]
    if not found:
        raise UsageError(f"{run}/{FOLDER} has no stored averages: train with --posthoc_widths '[0.05, 0.1]'.")
    return sorted((each for each in found if each.profile.updates), key=lambda each: (each.step, each.profile.exponent))


def _described(path: Path) -> StoredAverage:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        profile = Profile(exponent_of(float(metadata["width"])), int(metadata["updates"]))
        return StoredAverage(path, int(metadata["step"]), profile)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"The stored average {path} is damaged ({error}): remove it, and the others count.") from error
