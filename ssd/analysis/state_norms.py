"""The norm of VDVAE's state after every block: does it tell how far the pass is?

    python -m ssd.analysis.state_norms --model runs/digits_vdvae --data npz:held_out.npz --out runs/digits_vdvae/norms
    python -m ssd.analysis.state_norms --model models/cifar10 --data folder:/data/cifar10/test --num 1000

--model is a folder of `VDVAEModel.save_pretrained`, or one of a pipeline that has such a folder as vdvae/.

Blocks that share their weights over time are not told which application they are. arXiv:2301.08187 (figure 6) observes
that the norm |Z_i|_2 over channels and pixels grows from block to block of a resolution, and could serve as a clock.
Three passes are looked at: bottom-up, where an image becomes activations; top-down with latents of the posterior; and
top-down with latents of the prior, without an image. Each is repeated with a new network of the same settings, since a
residual network adds something to its state at every block, trained or not.

Prints by resolution the mean norm after its first and last block, 2 standard deviations after the last, and

    clock   the rank correlation (Spearman) of the mean norm with the number of the block: 1 is a clock that never goes
            back, however little it moves. Of two blocks it is always 1 or -1
    order   how often, of two blocks and two images, the later block has the larger norm: 1 where the norm of a single
            image tells the block, 0.5 where it tells nothing

Both are left out where the norm is constant. Writes state_norms.json, with mean and standard deviation over images
after every block, and state_norms.png, with mean +- 2 standard deviations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import mannwhitneyu, spearmanr

from vdvae import VDVAEModel

from ..commands.drawing import pyplot, save_figure
from ..commands.errors import exit_on_usage_error
from ..commands.files import write_json
from ..commands.output_paths import check_output_folder
from ..commands.parser import CommandParser
from ..publishing.saving import load_vdvae_network
from ..seeding import seed_torch
from .vdvae_inputs import NumberedIntegers, VDVAEImages, check_finite, noise_of_cells

PASSES = {"bottom_up": "bottom-up", "posterior": "top-down, posterior", "prior": "top-down, prior"}
"""Name of a pass -> in words."""

CONSTANT = 1e-5
"""Norms that differ by less than this share are the same: what float32 leaves of a normalised state."""


@dataclass(frozen=True, kw_only=True)
class StateNormsConfig(VDVAEImages):
    """Settings of the study.

    Parameters
    ----------
    out : str
        A folder for state_norms.json and state_norms.png.
    """

    out: str = "state_norms"


@dataclass(frozen=True)
class NormSeries:
    """The norms along one pass.

    Attributes
    ----------
    resolutions : list of int
        The side of the state after every block. The bottom-up pass begins with the state before its first block; the
        state after a block that pools has the coarser side.
    norms : np.ndarray
        (images, blocks), float64.
    """

    resolutions: list[int]
    norms: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(blocks,), over images."""
        return self.norms.mean(axis=0)

    @property
    def std(self) -> np.ndarray:
        """(blocks,), over images."""
        return self.norms.std(axis=0, ddof=1)

    def blocks_of(self, resolution: int) -> list[int]:
        """The numbers of the blocks at a resolution."""
        return [block for block, side in enumerate(self.resolutions) if side == resolution]

    def clock(self, resolution: int) -> float | None:
        """The rank correlation of the mean norm with the number of the block, within a resolution."""
        return rank_correlation(self.mean[self.blocks_of(resolution)])

    def order(self, resolution: int) -> float | None:
        """How often the later of two blocks has the larger norm, of two images, within a resolution."""
        return share_in_order(self.norms[:, self.blocks_of(resolution)])


def rank_correlation(values: np.ndarray) -> float | None:
    """Spearman's correlation of values with their position; None for one value, or if they are constant.

    Examples
    --------
    >>> rank_correlation(np.array([1.0, 2.0, 10.0])), rank_correlation(np.array([3.0, 3.0]))
    (1.0, None)
    """
    if len(values) < 2 or np.ptp(values) <= CONSTANT * np.abs(values).max():
        return None
    return float(spearmanr(np.arange(len(values)), values).statistic)


def share_in_order(norms: np.ndarray) -> float | None:
    """P(norm of image i after the later block > norm of image k after the earlier), over pairs of blocks and all i, k.

    Parameters
    ----------
    norms : np.ndarray
        (images, blocks). Equal norms count one half.

    Returns
    -------
    float or None
        None for one block, or if all norms are the same.

    Examples
    --------
    >>> share_in_order(np.array([[1.0, 3.0], [2.0, 4.0]])), share_in_order(np.array([[1.0, 1.0], [2.0, 2.0]]))
    (1.0, 0.5)
    """
    if norms.shape[1] < 2 or np.ptp(norms) <= CONSTANT * np.abs(norms).max():
        return None
    pairs = combinations(norms.T, 2)
    return float(np.mean([mannwhitneyu(later, earlier).statistic for earlier, later in pairs])) / len(norms) ** 2


def norms_of(states: Sequence[torch.Tensor]) -> torch.Tensor:
    """|Z|_2 over channels and pixels of every image after every block: L tensors (B, W, R, R) -> (B, L), float64.

    Examples
    --------
    >>> norms_of([torch.ones(1, 4, 2, 2), torch.ones(1, 9, 1, 1)])
    tensor([[4., 3.]], dtype=torch.float64)
    """
    return torch.stack([state.double().flatten(1).norm(dim=1) for state in states], dim=1).cpu()


@torch.no_grad()
def state_norms(
    model: VDVAEModel, images: NumberedIntegers, batch_size: int, seed: int, title: str = "norms"
) -> dict[str, NormSeries]:
    """The norms of all passes.

    Parameters
    ----------
    model : VDVAEModel
    images : NumberedIntegers
        The pass from the prior is run as often as there are images.
    batch_size : int
    seed : int
        Of the noise: that of an image depends on the seed and the image's number alone.
    title : str
        Of the progress bar.

    Returns
    -------
    dict
        A `NormSeries` for every name in `PASSES`.
    """
    found: dict[str, list[torch.Tensor]] = {name: [] for name in PASSES}
    sides: dict[str, list[int]] = {}
    for batch, numbers in images.batches(batch_size, title):
        pixels = batch.to(model.device)
        drawn = {name: noise_of_cells(model, numbers, seed, f"{name} norms") for name in ("posterior", "prior")}
        states = {
            "bottom_up": model.bottom_up(pixels, return_states=True)[1],
            "posterior": model.encode(pixels, drawn["posterior"], return_states=True).states,
            "prior": model.decode(noise=drawn["prior"], return_states=True).states,
        }
        for name, of_pass in states.items():
            found[name].append(norms_of(of_pass))
            sides[name] = [state.shape[-1] for state in of_pass]
    norms = {name: torch.cat(parts) for name, parts in found.items()}
    for name, values in norms.items():
        check_finite(values, f"norms of the states, {PASSES[name]}")
    return {name: NormSeries(sides[name], values.numpy()) for name, values in norms.items()}


def new_network(model: VDVAEModel, seed: int) -> VDVAEModel:
    """A network of the same settings as it is before training; a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(seed, "untrained network")
        network = type(model).from_config(model.config)
    return network.to(model.device).eval().requires_grad_(False)


def format_table(trained: dict[str, NormSeries], untrained: dict[str, NormSeries]) -> str:
    """A line per pass and resolution, for people."""
    names = ("first", "last", "+-", "clock", "order", "new: first", "last", "+-", "clock", "order")
    lines = [f"{'pass':>19} {'size':>4} {'blocks':>6} " + " ".join(f"{name:>10}" for name in names)]
    for name, series in trained.items():
        for side in dict.fromkeys(series.resolutions):
            blocks = series.blocks_of(side)
            cells: list[float | None] = []
            for one in (series, untrained[name]):
                cells += [one.mean[blocks[0]], one.mean[blocks[-1]], 2 * one.std[blocks[-1]]]
                cells += [one.clock(side), one.order(side)]
            texts = ["" if cell is None else f"{cell:.4g}" for cell in cells]
            start = f"{PASSES[name]:>19} {side:4d} {len(blocks):6d} "
            lines.append((start + " ".join(f"{text:>10}" for text in texts)).rstrip())
    return "\n".join(lines)


def as_json(trained: NormSeries, untrained: NormSeries) -> dict[str, Any]:
    """The numbers of one pass."""
    return {
        "blocks": [
            {
                "block": block,
                "resolution": side,
                "mean": float(trained.mean[block]),
                "std": float(trained.std[block]),
                "untrained_mean": float(untrained.mean[block]),
                "untrained_std": float(untrained.std[block]),
            }
            for block, side in enumerate(trained.resolutions)
        ],
        "resolutions": [
            {
                "resolution": side,
                "clock": trained.clock(side),
                "untrained_clock": untrained.clock(side),
                "order": trained.order(side),
                "untrained_order": untrained.order(side),
            }
            for side in dict.fromkeys(trained.resolutions)
        ],
    }


def draw(trained: dict[str, NormSeries], untrained: dict[str, NormSeries]) -> Any:
    """A panel per pass: blocks on x, the resolutions marked, mean +- 2 standard deviations of both networks."""
    figure, axes = pyplot().subplots(1, len(trained), figsize=(4 * len(trained), 3), layout="constrained")
    for axis, (name, series) in zip(axes, trained.items()):
        for label, colour, one in (("trained", "C0", series), ("new", "C1", untrained[name])):
            blocks = np.arange(len(one.resolutions))
            axis.plot(blocks, one.mean, ".-", color=colour, label=label)
            axis.fill_between(blocks, one.mean - 2 * one.std, one.mean + 2 * one.std, color=colour, alpha=0.25)
        mark_resolutions(axis, series.resolutions)
        axis.set_xlabel("block")
        axis.set_title(PASSES[name], fontsize="medium", pad=16)
    axes[0].set_ylabel(r"$\Vert Z_i \Vert_2$, mean $\pm$ 2 std")
    axes[0].legend(fontsize="small")
    return figure


def mark_resolutions(axis: Any, resolutions: Sequence[int]) -> None:
    """Lines where the resolution changes, and its name above each part."""
    starts = [i for i, side in enumerate(resolutions) if i == 0 or side != resolutions[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(resolutions)]):
        if start:
            axis.axvline(start - 0.5, color="0.7", linewidth=0.8, linestyle=":")
        side = resolutions[start]
        axis.text(
            (start + end - 1) / 2, 1.02, str(side), transform=axis.get_xaxis_transform(), ha="center", fontsize="small"
        )


def write(
    config: StateNormsConfig,
    images: NumberedIntegers,
    trained: dict[str, NormSeries],
    untrained: dict[str, NormSeries],
) -> list[Path]:
    """The files, and their paths."""
    out = Path(config.out)
    about = {"model": config.model, "data": config.data, "images": images.numbers, "seed": config.seed}
    passes = {name: as_json(trained[name], untrained[name]) for name in trained}
    write_json(out / "state_norms.json", {**about, "passes": passes})
    save_figure(draw(trained, untrained), out / "state_norms.png")
    return [out / "state_norms.json", out / "state_norms.png"]


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.analysis.state_norms", description=__doc__)
        parser.add_class_arguments(StateNormsConfig)
        config = StateNormsConfig(**parser.parse_args(arguments).as_dict())
        check_output_folder(config.out, "--out")
        pyplot()
        model = load_vdvae_network(config.model, config.device)
        images = config.integers(model)
    with exit_on_usage_error():
        trained = state_norms(model, images, config.at_once, config.seed)
        untrained = state_norms(new_network(model, config.seed), images, config.at_once, config.seed, "new network")
        print(f"means over {len(images.numbers)} images of {config.data}")  # noqa: T201
        print(format_table(trained, untrained))  # noqa: T201
        for path in write(config, images, trained, untrained):
            print(f"wrote {path}")  # noqa: T201


if __name__ == "__main__":
    main()
