"""VDVAE begins every level at a point mass: how far its first cell spreads it, and what that does to samples.

    python -m ssd.analysis.point_mass --model runs/digits_vdvae --data npz:held_out.npz --out runs/digits_vdvae/point
    python -m ssd.analysis.point_mass --model models/cifar10 --data folder:/data/cifar10/test --temperatures '[1, 0.8]'

--model is a folder of `VDVAEModel.save_pretrained`, or one of a pipeline that has such a folder as vdvae/.

Prints for every level of the top-down pass (`ssd.analysis.level_entries` has the definitions; details are what the
state has beside its means over the coarser level's pixels, all of it at the coarsest level):

    entry, bias     mean square of the details on entry, and of those of the learned bias: the same number
    spread          root of their variance over images: 0 but for rounding, a point mass
    1st q, 1st p    spread of the details after the level's first cell, latents of the posterior and of the prior
    gain            |dZ| / d|noise| of the level's noise, Z the state after the level, prior; root mean square
    radial          d|Z| / d|noise|, mean
    to end          the gain with Z the state after the last cell
    kl              posterior against prior, nats per image, the sum over the level's cells
    |Z| q, |Z| p    norm of the state after the level, posterior pass and pass from the prior

and for every temperature the squared Frechet distance between pixels of samples and of the data. Norms of the two
passes that differ say that the states of sampling are not those of training. Writes point_mass.json, which has
numbers of every cell; point_mass.png; and samples.png, with the same noise at all temperatures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vdvae import VDVAEModel

from ..commands.drawing import pyplot, save_figure
from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.files import write_json
from ..commands.output_paths import check_output_folder
from ..commands.parser import CommandParser
from ..pipeline_vdvae import grey_levels
from ..publishing.saving import load_vdvae_network
from .level_entries import DetailMoments, Level, bias_of, level_gains, levels_of, recorded_entries
from .state_norms import mark_resolutions, norms_of
from .temperatures import TemperatureSamples, at_temperatures, between_halves, draw_samples
from .vdvae_inputs import NumberedIntegers, VDVAEImages, check_finite, noise_of_cells

PASSES = ("posterior", "prior")


@dataclass(frozen=True, kw_only=True)
class PointMassConfig(VDVAEImages):
    """Settings of the study.

    Parameters
    ----------
    temperatures : list of float
        The factors of the prior's scale at which samples are drawn.
    samples : int
        The number of samples at each.
    out : str
        A folder for point_mass.json, point_mass.png and samples.png.
    """

    temperatures: list[float] = field(default_factory=lambda: [1.0, 0.9, 0.8, 0.7])
    samples: int = 1000
    out: str = "point_mass"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperatures:
            raise UsageError("--temperatures must name at least one, got an empty list.")
        if wrong := [one for one in self.temperatures if not 0 <= one < float("inf")]:
            raise UsageError(f"--temperatures must be at least 0, got {wrong[0]:g}.")
        if self.samples < 2:
            raise UsageError(f"--samples must be at least 2, got {self.samples}.")


@dataclass(frozen=True)
class PassNumbers:
    """One of the two passes.

    Attributes
    ----------
    entry, after : list of DetailMoments
        By level, around the bias's details: details on entry, and after its first cell.
    norms : torch.Tensor
        (images, cells), of the state after every cell.
    """

    entry: list[DetailMoments]
    after: list[DetailMoments]
    norms: torch.Tensor


@dataclass(frozen=True)
class Measurement:
    """What is known about a model.

    Attributes
    ----------
    levels : list of Level
    bias_energies : list of float
        By level, mean square of the bias's details.
    passes : dict of str to PassNumbers
        By name, of `PASSES`.
    kl : torch.Tensor
        (images, cells), nats per image.
    gains : list of (dict or None)
        By level: gain, radial, to_end.
    """

    levels: list[Level]
    bias_energies: list[float]
    passes: dict[str, PassNumbers]
    kl: torch.Tensor
    gains: list[dict[str, float] | None]

    def row(self, index: int) -> dict[str, Any]:
        """The numbers of one level."""
        level, last = self.levels[index], self.levels[index].cells[-1]
        row: dict[str, Any] = {"resolution": level.resolution, "source": level.source, "cells": level.cells}
        row["bias_energy"] = self.bias_energies[index]
        for name, numbers in self.passes.items():
            row[name] = {
                "entry_energy": numbers.entry[index].energy,
                "entry_spread": numbers.entry[index].spread,
                "farthest_from_bias": numbers.entry[index].farthest,
                "first_cell_energy": numbers.after[index].energy,
                "first_cell_spread": numbers.after[index].spread,
                "norm_mean": float(numbers.norms[:, last].mean()),
                "norm_std": float(numbers.norms[:, last].std()),
            }
        row["kl"] = float(self.kl[:, level.cells].sum(dim=1).mean())
        return row | (self.gains[index] or dict.fromkeys(("gain", "radial", "to_end")))


@torch.no_grad()
def measure(model: VDVAEModel, images: NumberedIntegers, batch_size: int, seed: int) -> Measurement:
    """Run both passes, and differentiate the one from the prior.

    Parameters
    ----------
    model : VDVAEModel
    images : NumberedIntegers
    batch_size : int
    seed : int
        Of the noise: that of an image depends on the seed and the image's number alone.
    """
    levels = levels_of(model)
    centres = [level.details(bias_of(model, level)) for level in levels]
    entry, after = ({name: [DetailMoments(centre) for centre in centres] for name in PASSES} for _ in range(2))
    norms: dict[str, list[torch.Tensor]] = {name: [] for name in PASSES}
    kl: list[torch.Tensor] = []
    moved: list[list[torch.Tensor]] = [[] for _ in levels]
    for batch, numbers in images.batches(batch_size, "passes"):
        drawn = {name: noise_of_cells(model, numbers, seed, f"point mass, {name}") for name in PASSES}
        for name in PASSES:
            with recorded_entries(model) as entries:
                if name == "posterior":
                    out = model.encode(batch.to(model.device), drawn[name], return_states=True)
                    kl.append(out.kl.double().cpu())
                else:
                    out = model.decode(noise=drawn[name], return_states=True)
            norms[name].append(norms_of(out.states))
            for index, level in enumerate(levels):
                first = level.cells[0]
                entry[name][index].add(level.details(entries[first]))
                after[name][index].add(level.details(out.states[first]))
        for index, level in enumerate(levels):
            if (found := level_gains(model, level, drawn["prior"])) is not None:
                (gain, radial), (to_end, _) = found
                moved[index].append(torch.stack([gain.square(), radial, to_end.square()]).double().cpu())
    together = {name: torch.cat(parts) for name, parts in norms.items()}
    divergences = torch.cat(kl)
    check_finite(torch.cat([divergences, *together.values()], dim=1), "its states or its KL divergences")
    return Measurement(
        levels,
        [float(centre.double().square().mean()) for centre in centres],
        {name: PassNumbers(entry[name], after[name], together[name]) for name in PASSES},
        divergences,
        [_mean_gains(parts) for parts in moved],
    )


def _mean_gains(parts: list[torch.Tensor]) -> dict[str, float] | None:
    if not parts:
        return None
    gain, radial, to_end = torch.cat(parts, dim=1).mean(dim=1).tolist()
    return {"gain": gain**0.5, "radial": radial, "to_end": to_end**0.5}


def format_table(found: Measurement) -> str:
    """A line per level, for people."""
    names = ("entry", "bias", "spread", "1st q", "1st p", "gain", "radial", "to end", "kl", "|Z| q", "|Z| p")
    lines = [f"{'size':>4} {'cells':>5} " + " ".join(f"{name:>8}" for name in names)]
    for index in range(len(found.levels)):
        row = found.row(index)
        q, p = row["posterior"], row["prior"]
        numbers = [p["entry_energy"], row["bias_energy"], p["entry_spread"]]
        numbers += [q["first_cell_spread"], p["first_cell_spread"], row["gain"], row["radial"], row["to_end"]]
        numbers += [row["kl"], q["norm_mean"], p["norm_mean"]]
        cells = ["" if number is None else f"{number:.3g}" for number in numbers]
        lines.append(f"{row['resolution']:4d} {len(row['cells']):5d} " + " ".join(f"{cell:>8}" for cell in cells))
    return "\n".join(lines)


def format_temperatures(found: Sequence[TemperatureSamples], halves: float | None) -> str:
    """A line per temperature, for people."""
    lines = [f"{'temperature':>11} {'distance':>9}"]
    lines += [f"{one.temperature:11g} {one.distance:9.4f}" for one in found]
    return "\n".join(lines if halves is None else [*lines, f"two halves of the data {halves:.4f}"])


def draw(found: Measurement) -> Any:
    """KL by cell; the norm by cell in both passes; the spread of details on entry and after the first cell."""
    figure, (left, middle, right) = pyplot().subplots(1, 3, figsize=(12, 3), layout="constrained")
    sides = [level.resolution for level in found.levels for _ in level.cells]
    order = [cell for level in found.levels for cell in level.cells]
    steps = range(len(order))
    left.bar(steps, found.kl.mean(dim=0)[order].numpy())
    left.set_ylabel("KL, nats per image")
    for name, colour in zip(PASSES, ("C0", "C1")):
        norms = found.passes[name].norms[:, order]
        mean, width = norms.mean(dim=0).numpy(), 2 * norms.std(dim=0).numpy()
        middle.plot(steps, mean, ".-", color=colour, label=name)
        middle.fill_between(steps, mean - width, mean + width, color=colour, alpha=0.25)
    middle.set_ylabel(r"$\Vert Z \Vert_2$, mean $\pm$ 2 std")
    middle.legend(fontsize="small")
    for axis in (left, middle):
        axis.set_xlabel("cell")
        mark_resolutions(axis, sides)
    rows = [found.row(index) for index in range(len(found.levels))]
    bars = {"on entry": [row["prior"]["entry_spread"] for row in rows]}
    bars |= {f"after the first cell, {name}": [row[name]["first_cell_spread"] for row in rows] for name in PASSES}
    for number, (label, values) in enumerate(bars.items()):
        places = [index + 0.27 * (number - 1) for index in range(len(rows))]
        right.bar(places, values, 0.25, label=label, color=("0.4", "C0", "C1")[number])
    right.set_xticks(range(len(rows)), [str(row["resolution"]) for row in rows])
    right.set_xlabel("resolution")
    right.set_ylabel("spread of details")
    right.set_ylim(top=1.35 * max(map(max, bars.values())))
    right.legend(fontsize="x-small", loc="upper left")
    return figure


def write(
    config: PointMassConfig,
    model: VDVAEModel,
    images: NumberedIntegers,
    found: Measurement,
    samples: Sequence[TemperatureSamples],
    halves: float | None,
) -> list[Path]:
    """The files, and their paths."""
    out = Path(config.out)
    content: dict[str, Any] = {"model": config.model, "data": config.data, "images": images.numbers}
    content |= {"seed": config.seed, "samples": config.samples}
    content["levels"] = [found.row(index) for index in range(len(found.levels))]
    content["cells"] = [
        {
            "cell": cell,
            "resolution": model.cells[cell].resolution,
            "kl_mean": float(found.kl[:, cell].mean()),
            "kl_std": float(found.kl[:, cell].std()),
            **{f"{name}_norm_mean": float(found.passes[name].norms[:, cell].mean()) for name in PASSES},
            **{f"{name}_norm_std": float(found.passes[name].norms[:, cell].std()) for name in PASSES},
        }
        for cell in range(found.kl.shape[1])
    ]
    content["temperatures"] = [{"temperature": one.temperature, "distance": one.distance} for one in samples]
    content["between_halves"] = halves
    write_json(out / "point_mass.json", content)
    save_figure(draw(found), out / "point_mass.png")
    save_figure(draw_samples(samples, images.images, grey_levels(model)), out / "samples.png")
    return [out / name for name in ("point_mass.json", "point_mass.png", "samples.png")]


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.analysis.point_mass", description=__doc__)
        parser.add_class_arguments(PointMassConfig)
        config = PointMassConfig(**parser.parse_args(arguments).as_dict())
        check_output_folder(config.out, "--out")
        pyplot()
        model = load_vdvae_network(config.model, config.device)
        levels_of(model)
        images = config.integers(model)
    with exit_on_usage_error():
        found = measure(model, images, config.at_once, config.seed)
        values = grey_levels(model)
        samples = at_temperatures(
            model, images.images, values, config.temperatures, config.samples, config.seed, config.at_once
        )
        halves = between_halves(images.images, values, config.seed)
        print(f"means over {len(images.numbers)} images of {config.data}")  # noqa: T201
        print(format_table(found))  # noqa: T201
        print(f"\nsquared Frechet distance of the pixels of {config.samples} samples to the data")  # noqa: T201
        print(format_temperatures(samples, halves))  # noqa: T201
        for path in write(config, model, images, found, samples, halves):
            print(f"wrote {path}")  # noqa: T201


if __name__ == "__main__":
    main()
