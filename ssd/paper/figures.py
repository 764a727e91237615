"""The figures of the paper that need no training: information, schedules, cost, and the isotropic approximation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..analysis.gaussian_data import power_law_covariance
from ..analysis.gaussian_oracle import oracle_process
from ..analysis.information.state import (
    continuous_resolution,
    image_information,
    state_information,
    sufficient_resolution,
)
from ..analysis.reverse_chain import Sampler, reverse_chain_covariance
from ..commands.drawing import pyplot, save_figure
from ..commands.output_paths import check_output_folder
from ..operators.kernels import dct_matrix
from ..process.noise import NoiseSchedule, make_betas
from ..process.resolution import ResolutionSchedule, pyramid
from ..process.scale_space import ScaleSpaceProcess
from ..process.spacing import linspace_timesteps
from .cost import average_gflops, paper_network

SCHEDULES = (
    ("equal", 1.0),
    ("convex_decay", 2.0),
    ("convex_decay", 0.5),
    ("sigmoid_like", 3.0),
    ("tanh_like", 3.0),
)
"""The paper's ablation, with their gammas."""

STEPS = 50
"""Sampling steps of the study of the isotropic approximation."""


@dataclass
class FiguresConfig:
    """Draw the figures of the paper that need no training.

    Parameters
    ----------
    out : str
        The folder of the pictures.
    res : int
        The side of the images of the study of the isotropic approximation, in pixels: a power of two from 16 to 64.
    """

    out: str = "docs/images"
    res: int = 32

    def __post_init__(self) -> None:
        if self.res not in (16, 32, 64):
            raise ValueError(f"--res must be 16, 32 or 64, got {self.res}.")


def draw_figures(config: FiguresConfig) -> None:
    """Draw all of them into --out."""
    out = Path(config.out)
    check_output_folder(out, "--out")
    out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Callable[[], Any]] = {
        "paper_information": information,
        "paper_schedules": schedules,
        "paper_cost": cost,
        "paper_isotropic": lambda: isotropic(config.res),
    }
    with tqdm(figures.items(), desc="figures", unit=" figures") as bar:
        for name, figure in bar:
            bar.set_postfix_str(name)
            save_figure(figure(), out / f"{name}.png")
            bar.write(f"wrote {out / name}.png")


def information() -> Any:
    """Figure 2: what states and small images hold, and the resolution at which they meet."""
    noise, plt = NoiseSchedule.from_betas(make_betas()), pyplot()
    known = state_information(noise.signal[:-1], noise.sigma[:-1])
    sides = torch.linspace(0, 1, 200, dtype=torch.float64)
    figure, (states, images, meeting) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    states.plot(known)
    states.set(xlabel="timestep t", ylabel="Info(t)", title="a noisy state")
    images.plot(sides, image_information(sides))
    images.set(xlabel="side r, as a share of the full side", ylabel="Info(r)", title="a small image")
    meeting.plot(64 * sufficient_resolution(noise.signal[:-1], noise.sigma[:-1]), label="as much information")
    levels = ResolutionSchedule.from_curve(pyramid(64, 4), 1000)
    meeting.step(range(1000), [levels.size(t)[0] for t in range(1000)], label="convex_decay 0.5, 4 levels")
    meeting.set(xlabel="timestep t", ylabel="side in pixels", title="where they meet, of 64 pixels", ylim=(0, 68))
    meeting.legend(loc="lower left", fontsize="small")
    for axis in (states, images, meeting):
        axis.grid(alpha=0.3)
    return figure


def schedules() -> Any:
    """Figure 5: the resolution schedules, continuous and in four levels."""
    plt = pyplot()
    figure, axes = plt.subplots(1, len(SCHEDULES), figsize=(14, 3.2), layout="constrained", sharey=True)
    time = np.linspace(0, 1, 1000)
    for axis, (name, gamma) in zip(axes, SCHEDULES):
        axis.plot(1000 * time, [continuous_resolution(tau, 64, 4, name, gamma) for tau in time], label="continuous")
        discrete = ResolutionSchedule.from_curve(pyramid(64, 4), 1000, name, gamma)
        axis.step(range(1000), [discrete.size(t)[0] for t in range(1000)], where="post", label="4 levels")
        axis.set(title=name if name == "equal" else f"{name}, gamma {gamma:g}", xlabel="timestep t")
        axis.set_yscale("log", base=2)
        axis.set_yticks([8, 16, 32, 64], labels=["8", "16", "32", "64"])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("side in pixels")
    axes[0].legend(loc="lower left", fontsize="small")
    return figure


def cost() -> Any:
    """Figure 6: GFLOPs per image and step by the number of levels, for Flexi-UNet and the full U-Net."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    for axis, res in zip(axes, (64, 128, 256)):
        stages = len(paper_network(res).config.block_out_channels)
        numbers = list(range(1, stages + 1))
        plain = average_gflops(res, 1, decoder_exit="full")
        axis.plot(numbers, [average_gflops(res, levels) for levels in numbers], "o-", label="SSD, Flexi-UNet")
        axis.axhline(plain, color="k", linestyle="--", linewidth=1, label="plain U-Net at full size")
        axis.set(xlabel="levels", ylabel="GFLOPs per image and step", title=f"{res} pixels", ylim=(0, 1.1 * plain))
        axis.set_xticks(numbers)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower left", fontsize="small")
    return figure


def isotropic(res: int) -> Any:
    """The isotropic approximation of the posterior: what it does to the state after a change, and to final images.

    In closed form, for Gaussian images and a perfect network.
    """
    plt, size = pyplot(), (res, res)
    data, process = power_law_covariance(size), oracle_process(size, 3)
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for axis, t in zip(axes, process.required_timesteps):
        small, large = process.size(t)[0], process.size(t - 1)[0]
        for name, marker in (("exact", "o-"), ("isotropic", "s-")):
            spectrum = _spectrum(_state_covariance(process, t, name), large) / float(process.sigma(t - 1) ** 2)
            axis.plot(spectrum, marker, markersize=3, label=name)
        axis.set(xlabel="cosine frequency", ylabel="noise of $x_s$ over $\\sigma_s^2$", ylim=(0.7, 1.3))
        axis.set_title(f"after the change from {small} to {large} pixels")
        axis.legend(loc="upper right", fontsize="small")
        axis.grid(alpha=0.3)
    _final_amplitudes(axes[2], data, process, res)
    return figure


def _state_covariance(process: ScaleSpaceProcess, t: int, covariance: str) -> torch.Tensor:
    """Of x_s given x_0 after the step from the level change t, whose noise should be sigma_s^2 I."""
    zeros = torch.zeros(1, 1, *process.size(t - 1), dtype=torch.float64)
    basis = torch.eye(process.size(t)[0] * process.size(t)[1], dtype=torch.float64).view(-1, 1, *process.size(t))
    posterior = process.posterior(zeros, basis, t - 1, t, covariance=covariance)
    kernel = posterior.mean.flatten(1)  # (n_t, n_s)
    return process.sigma(t) ** 2 * kernel.T @ kernel + posterior.covariance.to_dense()


def _final_amplitudes(axis: Any, data: torch.Tensor, process: ScaleSpaceProcess, res: int) -> None:
    """Amplitude per frequency of the images at the end of the chain, over the data's."""
    timesteps, reference = linspace_timesteps(process, STEPS), _spectrum(data, res)
    for name, marker in (("exact", "o-"), ("isotropic", "s-")):
        found = reverse_chain_covariance(process, data, timesteps, Sampler(covariance=name))
        axis.plot(np.sqrt(_spectrum(found, res) / reference), marker, markersize=3, label=name)
    axis.axhline(1, color="k", linestyle="--", linewidth=1)
    axis.set(xlabel="cosine frequency", ylabel="amplitude over the data's", ylim=(0.7, 1.05))
    axis.set_title(f"final images, {len(timesteps)} steps")
    axis.legend(loc="lower left", fontsize="small")
    axis.grid(alpha=0.3)


def _spectrum(covariance: torch.Tensor, res: int) -> np.ndarray:
    """The variance of cosine frequencies, averaged over rings: (res,)."""
    cosines = torch.kron(dct_matrix(res), dct_matrix(res))
    variances = (cosines @ covariance * cosines).sum(dim=1).view(res, res)
    frequency = torch.arange(res, dtype=torch.float64)
    ring = (frequency[:, None].square() + frequency.square()).sqrt().round().long().clamp(max=res - 1)
    total = torch.zeros(res, dtype=torch.float64).index_add(0, ring.flatten(), variances.flatten())
    return (total / torch.bincount(ring.flatten(), minlength=res)).numpy()
