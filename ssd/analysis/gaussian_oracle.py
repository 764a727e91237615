"""The sampler without sampling noise: the covariance that a whole reverse chain produces, in closed form.

    python -m ssd.analysis.gaussian_oracle
    python -m ssd.analysis.gaussian_oracle --levels '[1, 4]' --steps '[10, 50, 250]' --etas '[0]' --plot oracle.png

For Gaussian data x_0 ~ N(0, C) the network is replaced by the exact posterior mean, which is linear in x_t, so
that every step is x_s = A x_t + N(0, Q) and the covariance goes from one state to the next by P_s = A P_t A^T + Q.
What is left between N(0, P) at the end and the data is the sampler's own error: too few steps, a start that is not
the true marginal, and at a level change the variance of the new details, of which a mean has none. Ours.

Shape letters: H W the full resolution, D = H W; n_t the number of pixels of x_t, n_s of x_s, s < t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.files import whole_file
from ..commands.output_paths import check_output_file
from ..commands.parser import CommandParser
from ..evaluation.distances.frechet import frechet_distance
from ..operators.sizes import Size
from ..process.noise import NoiseSchedule, make_betas
from ..process.resolution import ResolutionSchedule, pyramid
from ..process.scale_space import ScaleSpaceProcess

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_TIMESTEPS = 1000
LARGEST_RES = 64  # matrices of D x D: 4096 x 4096


@dataclass
class OracleConfig:
    """Settings of the study. The process is the paper's: linear betas, bilinear kernel, convex_decay.

    Parameters
    ----------
    res : int
        The side of the square images in pixels, 2..64. Memory grows with its fourth power, time with its sixth.
    levels : list of int
        The numbers of resolutions. One level is DDPM.
    steps : list of int
        The numbers N of evenly spaced timesteps, 2..1000. The level changes come on top.
    etas : list of float
        The values of eta in [0, 1]. 1 is ancestral sampling, 0 is DDIM's step.
    resolution_gamma : float
        The shape of the resolution schedule convex_decay.
    plot : str, optional
        A PNG to write, of distance against steps.
    """

    res: int = 32
    levels: list[int] = field(default_factory=lambda: [1, 2, 3])
    steps: list[int] = field(default_factory=lambda: [10, 25, 50])
    etas: list[float] = field(default_factory=lambda: [1.0, 0.0])
    resolution_gamma: float = 0.5
    plot: str | None = None

    def __post_init__(self) -> None:
        _require("res", [self.res], 2, LARGEST_RES)
        _require("levels", self.levels, 1, self.res.bit_length())
        _require("steps", self.steps, 2, NUM_TIMESTEPS)
        _require("etas", self.etas, 0, 1)


@dataclass(frozen=True)
class OracleResult:
    """One chain.

    Attributes
    ----------
    eta : float
    num_levels : int
    spread_steps : int
        N, the number of evenly spaced timesteps.
    num_steps : int
        Steps of the chain, each one evaluation of the denoiser: N and the level changes among them.
    distance : float
        Squared Frechet distance between the chain's result and the data, over all D dimensions.
    """

    eta: float
    num_levels: int
    spread_steps: int
    num_steps: int
    distance: float


def power_law_covariance(size: Size, mean_variance: float = 0.25, offset: float = 0.5) -> torch.Tensor:
    """Covariance of images with the spectrum 1 / (offset + f^2), f^2 = i^2 + j^2 over DCT frequencies i, j. Ours.

    Parameters
    ----------
    size : (height, width)
    mean_variance : float
        Mean of the pixels' variances; 0.25 is about that of natural images in [-1, 1].
    offset : float
        Positive; bounds the variance of the mean brightness.

    Returns
    -------
    torch.Tensor
        C, shape (D, D), float64, symmetric positive definite.
    """
    frequencies_h, frequencies_w = (torch.arange(length, dtype=torch.float64) for length in size)
    spectrum = 1 / (offset + frequencies_h[:, None] ** 2 + frequencies_w**2)  # (H, W)
    spectrum *= mean_variance / spectrum.mean()
    basis = torch.kron(_cosine_basis(size[0]), _cosine_basis(size[1]))  # (D, D), a row per frequency
    return basis.T @ (spectrum.view(-1, 1) * basis)


def posterior_mean_matrix(process: ScaleSpaceProcess, data_covariance: torch.Tensor, s: int, t: int) -> torch.Tensor:
    """The best denoiser of Gaussian data as a matrix: E[D_s x_0 | x_t] = E x_t, the perfect network. Ours.

        E = a_t D_s C D_t^T (a_t^2 D_t C D_t^T + sigma_t^2 I)^{-1}

    Parameters
    ----------
    process : ScaleSpaceProcess
    data_covariance : torch.Tensor
        C, shape (D, D), float64.
    s, t : int
        -1 <= s < t.

    Returns
    -------
    torch.Tensor
        E^T, shape (n_t, n_s), float64: row i is the prediction for the i-th basis vector of x_t.
    """
    a_t, sigma_t = process.signal(t), process.sigma(t)
    seen = _degrade_rows(process, data_covariance, t).T  # D_t C, (n_t, D)
    covariance_t = a_t**2 * _degrade_rows(process, seen, t)
    covariance_t.diagonal().add_(sigma_t**2)
    return torch.cholesky_solve(a_t * _degrade_rows(process, seen, s), torch.linalg.cholesky(covariance_t))


def reverse_step_covariance(
    process: ScaleSpaceProcess,
    data_covariance: torch.Tensor,
    state: torch.Tensor,
    s: int,
    t: int,
    eta: float,
    covariance: str = "exact",
) -> torch.Tensor:
    """Covariance of x_s after one step of the sampler with the perfect network: A P A^T + Q. Ours.

    A and Q are taken from `process.posterior`, applied to the basis vectors of x_t.

    Parameters
    ----------
    process : ScaleSpaceProcess
    data_covariance : torch.Tensor
        C, shape (D, D), float64.
    state : torch.Tensor
        P, the covariance of x_t, shape (n_t, n_t), float64.
    s, t : int
        -1 <= s < t.
    eta : float
        In [0, 1].
    covariance : {"exact", "isotropic"}
        As in `ScaleSpaceProcess.posterior`.

    Returns
    -------
    torch.Tensor
        Shape (n_s, n_s), float64.
    """
    predictions = posterior_mean_matrix(process, data_covariance, s, t).view(-1, 1, *process.size(s))
    basis = torch.eye(len(state), dtype=torch.float64).view(-1, 1, *process.size(t))
    posterior = process.posterior(predictions, basis, s=s, t=t, eta=eta, covariance=covariance)
    step = posterior.mean.flatten(1)  # A^T, (n_t, n_s)
    return step.T @ (state @ step) + posterior.covariance.to_dense()


def reverse_chain_covariance(
    process: ScaleSpaceProcess,
    data_covariance: torch.Tensor,
    timesteps: Sequence[int],
    eta: float,
    after_step: Callable[[], object] | None = None,
    covariance: str = "exact",
) -> torch.Tensor:
    """Covariance of the images that the sampler makes with the perfect network, from x_t ~ N(0, I). Ours.

    Parameters
    ----------
    process : ScaleSpaceProcess
    data_covariance : torch.Tensor
        C, shape (D, D), float64.
    timesteps : sequence of int
        Strictly descending, in 0..T-1; the step from the last one to s = -1 is added.
    eta : float
        In [0, 1].
    after_step : callable, optional
        Called after every step, for progress bars.
    covariance : {"exact", "isotropic"}
        Of every step, as in `ScaleSpaceProcess.posterior`.

    Returns
    -------
    torch.Tensor
        Shape (D, D), float64.

    Examples
    --------
    >>> process = oracle_process((8, 8), num_levels=2)
    >>> data = power_law_covariance((8, 8))
    >>> reverse_chain_covariance(process, data, spread_timesteps(process, 10), eta=1.0).shape
    torch.Size([64, 64])
    """
    height, width = process.size(-1)
    if tuple(data_covariance.shape) != (height * width,) * 2:
        raise ValueError(
            f"The covariance of {height} x {width} images must be ({height * width}, {height * width}), "
            f"got {tuple(data_covariance.shape)}."
        )
    height, width = process.size(timesteps[0])
    state = torch.eye(height * width, dtype=torch.float64)
    for t, s in zip(timesteps, [*timesteps[1:], -1]):
        state = reverse_step_covariance(process, data_covariance, state, s, t, eta, covariance)
        if after_step is not None:
            after_step()
    return state


def oracle_process(size: Size, num_levels: int, gamma: float = 0.5) -> ScaleSpaceProcess:
    """The paper's process: linear betas 1e-4..0.02, T = 1000, bilinear kernel, convex_decay(gamma)."""
    schedule = ResolutionSchedule.from_curve(pyramid(size, num_levels), NUM_TIMESTEPS, "convex_decay", gamma)
    return ScaleSpaceProcess(NoiseSchedule.from_betas(make_betas(num_timesteps=NUM_TIMESTEPS)), schedule)


def spread_timesteps(process: ScaleSpaceProcess, number: int) -> list[int]:
    """`number` evenly spaced timesteps from T-1 to 0 and every level change, descending."""
    spread = np.linspace(0, process.num_timesteps - 1, number).round().astype(int).tolist()
    return sorted({*spread, *process.resolution.level_changes}, reverse=True)


def chain_distance(
    process: ScaleSpaceProcess,
    data_covariance: torch.Tensor,
    timesteps: Sequence[int],
    eta: float,
    after_step: Callable[[], object] | None = None,
) -> float:
    """Squared Frechet distance between the data N(0, C) and the result of `reverse_chain_covariance`."""
    result = reverse_chain_covariance(process, data_covariance, timesteps, eta, after_step)
    mean = np.zeros(len(result))
    return frechet_distance(mean, data_covariance.numpy(), mean, result.numpy())


def run_study(config: OracleConfig) -> list[OracleResult]:
    """Every combination of eta, number of levels and steps."""
    size = (config.res, config.res)
    data = power_law_covariance(size)
    chains = [
        (eta, process, number, spread_timesteps(process, number))
        for eta in config.etas
        for process in (oracle_process(size, num_levels, config.resolution_gamma) for num_levels in config.levels)
        for number in config.steps
    ]
    results = []
    with tqdm(total=sum(len(timesteps) for *_, timesteps in chains), unit=" steps", delay=2) as progress:
        for eta, process, number, timesteps in chains:
            distance = chain_distance(process, data, timesteps, eta, progress.update)
            num_levels = len(process.resolution.resolutions)
            results.append(OracleResult(eta, num_levels, number, len(timesteps), distance))
    return results


def format_table(results: Sequence[OracleResult]) -> str:
    """One line per chain, for people."""
    lines = [f"{'eta':>5} {'levels':>7} {'N':>5} {'steps':>6} {'Frechet distance':>17}"]
    for r in results:
        lines.append(f"{r.eta:5g} {r.num_levels:7d} {r.spread_steps:5d} {r.num_steps:6d} {r.distance:17.3f}")
    return "\n".join(lines)


def plot_results(results: Sequence[OracleResult], path: Path) -> None:
    """Distance against steps, a panel per eta and a line per number of levels; writes a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    etas = list(dict.fromkeys(result.eta for result in results))
    figure = Figure(figsize=(1 + 3.5 * len(etas), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(etas), sharex=True, sharey=True, squeeze=False)[0]
    for panel, eta in zip(panels, etas):
        _draw_panel(panel, [result for result in results if result.eta == eta])
        panel.set_title({1.0: "eta = 1 (ancestral)", 0.0: "eta = 0 (DDIM)"}.get(eta, f"eta = {eta:g}"))
    panels[0].set_ylabel("Fréchet distance to the data")
    panels[0].legend(frameon=False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_panel(panel: Axes, results: Sequence[OracleResult]) -> None:
    from matplotlib.ticker import LogLocator

    for num_levels, marker in zip(sorted({result.num_levels for result in results}), "os^Dv<>P*X"):
        line = sorted((r.num_steps, r.distance) for r in results if r.num_levels == num_levels)
        panel.plot(*zip(*line), marker=marker, label=f"{num_levels} level" + "s" * (num_levels > 1))
    steps = sorted({result.spread_steps for result in results})
    panel.set(xscale="log", yscale="log", xlabel="steps")
    panel.set_xticks(steps, labels=[str(number) for number in steps])
    panel.minorticks_off()
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.grid(alpha=0.3)


def _cosine_basis(length: int) -> torch.Tensor:
    """Orthonormal DCT-II: (length, length), float64, a row per frequency."""
    k = torch.arange(length, dtype=torch.float64)
    basis = torch.cos(math.pi / length * k[:, None] * (k + 0.5)) * math.sqrt(2 / length)
    basis[0] /= math.sqrt(2)
    return basis


def _degrade_rows(process: ScaleSpaceProcess, matrix: torch.Tensor, t: int) -> torch.Tensor:
    """matrix D_t^T: each row of (m, D) is an image; returns (m, n_t)."""
    return process.degrade(matrix.reshape(-1, 1, *process.size(-1)), t).flatten(1)


def _require(name: str, values: Sequence[float], low: int, high: int) -> None:
    wrong = [value for value in values if not low <= value <= high]
    if wrong or not values:
        raise UsageError(f"--{name} must be in {low}..{high}, got {wrong[0] if wrong else 'an empty list'}.")


def _check_plot(path: str) -> None:
    """Find out before the work whether the plot can be drawn and written."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError("--plot needs matplotlib, which is not installed: pip install matplotlib.") from error
    check_output_file(path, "--plot", ".png")


def main(arguments: list[str] | None = None) -> None:
    # Everything that can be wrong with the user's input is checked here, before the work.
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(
            prog="python -m ssd.analysis.gaussian_oracle", description=__doc__, renamed={"image_size": "res"}
        )
        parser.add_class_arguments(OracleConfig)
        config = OracleConfig(**parser.parse_args(arguments).as_dict())
        for num_levels in config.levels:
            oracle_process((config.res, config.res), num_levels, config.resolution_gamma)
        if config.plot:
            _check_plot(config.plot)
    results = run_study(config)
    print(format_table(results))  # noqa: T201
    if config.plot:
        plot_results(results, Path(config.plot))
        print(f"wrote {config.plot}")  # noqa: T201


if __name__ == "__main__":
    main()
