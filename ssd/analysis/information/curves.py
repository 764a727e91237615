"""Curves of information over the timesteps, as numbers and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from ...commands.drawing import pyplot
from .gaussian import effective_dimension
from .network import NetworkInformation
from .rule_table import RuleRow
from .rules import LARGEST_MISSING, Evidence
from .state import contrast_information, state_information

STRIDE = 20
"""Timesteps between two points of m(t), which takes longest."""


def curves(evidence: Evidence) -> dict[str, Any]:
    """Numbers for JSON: the lists over t = 0..T-1, of every level or change where it says so.

    - info, info_contrast: Info(t)
    - bits: I_l(t) of one channel, per level
    - dimension: d_eff(t), per level
    - lost_out_of_band, lost_in_row_space: bits of a change, per change
    - missing_variance: m(t) at every `STRIDE`-th t, per change; empty for large images
    """
    noise, information = evidence.noise, evidence.information
    signal, sigma, snr = noise.signal[:-1], noise.sigma[:-1], noise.snr
    changes = range(1, len(information.steps) + 1)
    covariance = information.statistics.covariance
    small = covariance is not None and len(covariance) <= LARGEST_MISSING
    every = range(len(changes), noise.num_timesteps, STRIDE) if small else range(0)
    missing = {str(t): [evidence.missing(level, t).largest for level in changes] for t in every}
    return {
        "sizes": [list(operator.out_size) for operator in information.statistics.operators],
        "info": state_information(signal, sigma).tolist(),
        "info_contrast": contrast_information(signal, sigma, information.statistics.contrast).tolist(),
        "bits": [information.bits(snr, level).tolist() for level in range(len(changes) + 1)],
        "dimension": [effective_dimension(snr, p).tolist() for p in information.variances],
        "lost_out_of_band": [information.lost_out_of_band(snr, level).tolist() for level in changes],
        "lost_in_row_space": [information.lost_in_row_space(snr, level).tolist() for level in changes],
        "missing_variance": missing,
    }


def draw(found: dict[str, Any], rows: Sequence[RuleRow], network: Sequence[NetworkInformation]) -> Any:
    """A figure of the curves, the rules' timesteps, and a network's errors where there are any."""
    figure, axes = pyplot().subplots(2, 3, figsize=(14, 7.2), layout="constrained")
    sizes = [f"{height} x {width}" for height, width in found["sizes"]]
    changes = [f"{fine} to {coarse}" for fine, coarse in pairwise(sizes)]
    _draw_info(axes[0, 0], found)
    pixels = math.prod(found["sizes"][0])
    for level, size in enumerate(sizes):
        axes[0, 1].plot(torch.tensor(found["bits"][level]) / pixels, label=size)
        axes[0, 2].plot(torch.tensor(found["dimension"][level]) / math.prod(found["sizes"][level]), label=size)
    axes[0, 1].set(ylabel="bits per pixel of the full image", title="information of a state, if Gaussian", yscale="log")
    axes[0, 2].set(ylabel="share of the pixels", title="effective dimension", yscale="log")
    for index, change in enumerate(changes):
        coarse, colour = math.prod(found["sizes"][index + 1]), f"C{index}"
        axes[1, 0].plot(torch.tensor(found["lost_in_row_space"][index]) / coarse, color=colour, label=change)
        axes[1, 0].plot(torch.tensor(found["lost_out_of_band"][index]) / coarse, "--", color=colour)
    axes[1, 0].set(
        ylabel="bits per coarse pixel", title="lost by a change: row space (-), out of band (--)", ylim=(0, None)
    )
    _draw_missing(axes[1, 1], found, changes)
    if network:
        _draw_network(axes[1, 2], network)
    else:
        _draw_rules(axes[1, 2], rows, sizes)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    for axis in (axes[0, 0], axes[0, 1], axes[0, 2], axes[1, 0], axes[1, 1]):
        axis.set_xlabel("timestep t")
        axis.legend(fontsize="small")
    return figure


def _draw_info(axis: Any, found: dict[str, Any]) -> None:
    axis.plot(found["info"], label="uniform pixels (the paper)")
    axis.plot(found["info_contrast"], label="the data's pixels")
    for level in range(1, len(found["sizes"])):
        axis.axhline(4.0**-level, color="k", linewidth=0.6, linestyle=":")
    axis.set(ylabel="Info(t)", title="known pixels; dotted: those of small images")


def _draw_missing(axis: Any, found: dict[str, Any], changes: Sequence[str]) -> None:
    times = [int(t) for t in found["missing_variance"]]
    for index, change in enumerate(changes):
        axis.plot(times, [values[index] for values in found["missing_variance"].values()], label=change)
    axis.axhline(0.1, color="k", linewidth=0.8, linestyle=":", label="0.1")
    axis.set(ylabel="m(t)", title="missing variance of a change", yscale="log", ylim=(1e-3, None))


def _draw_rules(axis: Any, rows: Sequence[RuleRow], sizes: Sequence[str]) -> None:
    shown = [row for row in rows if row.first]
    for place, row in enumerate(shown):
        for level, t in enumerate(row.first, start=1):
            if t is not None:
                axis.plot(t, place, "os^Dv<>"[(level - 1) % 7], color=f"C{level}")
    for level, size in enumerate(sizes[1:], start=1):
        axis.plot([], [], "os^Dv<>"[(level - 1) % 7], color=f"C{level}", label=size)
    axis.set_yticks(range(len(shown)), labels=[row.rule for row in shown], fontsize="small")
    axis.set(xlabel="first timestep by the rule", title="where levels could begin", xlim=(0, None))
    axis.legend(fontsize="small")


def _draw_network(axis: Any, network: Sequence[NetworkInformation]) -> None:
    for index, level in enumerate(network):
        height, width = level.size
        axis.plot(level.timesteps, level.snr * level.error / 2, "-", color=f"C{index}", label=f"{height} x {width}")
        axis.plot(level.timesteps, level.snr * level.wiener / 2, "--", color=f"C{index}")
    axis.set(xlabel="timestep t", ylabel="snr x squared error / 2", yscale="log")
    axis.set_title("errors of the network (-) and of Wiener's filter (--)")
    axis.legend(fontsize="small")
