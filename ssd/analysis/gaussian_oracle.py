"""The sampler without sampling noise: the covariance that a whole reverse chain produces, in closed form.

    python -m ssd.analysis.gaussian_oracle
    python -m ssd.analysis.gaussian_oracle --levels '[1, 4]' --steps '[10, 20, 50]' --etas '[0]' --plot oracle.png
    python -m ssd.analysis.gaussian_oracle --solver_orders '[1]' --covariance row

For Gaussian data x_0 ~ N(0, C) the network is replaced by the exact posterior mean, so that the covariance of the
images at the end of the chain is known (`ssd.analysis.reverse_chain`). What is left between it and C is the sampler's
own error: too few steps, a start that is not the true marginal, and what a mean does not know, which --covariance
adds back, part by part. Ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tqdm.auto import tqdm

from ..commands.drawing import pyplot, save_figure
from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.output_paths import check_output_file
from ..commands.parser import CommandParser
from ..operators.sizes import Size
from ..process.noise import NoiseSchedule, extended_betas, make_betas
from ..process.resolution import ResolutionSchedule, pyramid
from ..process.scale_space import ScaleSpaceProcess
from ..process.spacing import SPACINGS
from .gaussian_data import power_law_covariance
from .reverse_chain import Sampler, chain_distance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_TIMESTEPS = 1000
LARGEST_RES = 64  # matrices of D x D: 4096 x 4096
SPACING_OF_ORDER = {1: "linspace", 2: "logsnr"}


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
        The numbers of steps, 2..1000.
    etas : list of float
        The values of eta in [0, 1]. 1 is ancestral sampling, 0 is DDIM's step.
    solver_orders : list of int
        1 is the paper's sampler, with even timesteps; 2 is second order, with even steps in the log-SNR.
    covariance : {"none", "null", "row", "change", "within", "all"}
        Where the prediction gets the covariance of what it does not know: nowhere; at level changes in the null space
        of the downsampling, in its row space, or in both; within levels; everywhere.
    resolution_gamma : float
        The shape of the resolution schedule convex_decay.
    level_gain : float
        In 1..2, a factor of downsampling; 2 makes levels isometric, 1 is the paper's process.
    plot : str, optional
        A PNG to write, of distance against steps and against cost.
    """

    res: int = 32
    levels: list[int] = field(default_factory=lambda: [1, 2, 3])
    steps: list[int] = field(default_factory=lambda: [10, 20, 50])
    etas: list[float] = field(default_factory=lambda: [1.0, 0.0])
    solver_orders: list[int] = field(default_factory=lambda: [1, 2])
    covariance: Literal["none", "null", "row", "change", "within", "all"] = "none"
    resolution_gamma: float = 0.5
    level_gain: float = 1.0
    plot: str | None = None

    def __post_init__(self) -> None:
        _require("res", [self.res], 2, LARGEST_RES)
        _require("levels", self.levels, 1, self.res.bit_length())
        _require("steps", self.steps, max(2, *self.levels), NUM_TIMESTEPS)
        _require("etas", self.etas, 0, 1)
        _require("solver_orders", self.solver_orders, 1, 2)


@dataclass(frozen=True)
class OracleResult:
    """One chain.

    Attributes
    ----------
    solver_order : int
    eta : float
    num_levels : int
    num_steps : int
        Each one evaluation of the denoiser.
    cost : float
        Pixels that the denoiser predicts in the whole chain, in steps at full resolution.
    distance : float
        Squared Frechet distance between the chain's result and the data, over all D dimensions.
    """

    solver_order: int
    eta: float
    num_levels: int
    num_steps: int
    cost: float
    distance: float


def oracle_process(size: Size, num_levels: int, gamma: float = 0.5, level_gain: float = 1.0) -> ScaleSpaceProcess:
    """The paper's process: linear betas 1e-4..0.02, T = 1000, bilinear kernel, convex_decay(gamma); or with a gain."""
    schedule = ResolutionSchedule.from_curve(pyramid(size, num_levels), NUM_TIMESTEPS, "convex_decay", gamma)
    betas = extended_betas(make_betas(num_timesteps=NUM_TIMESTEPS), level_gain ** (num_levels - 1))
    return ScaleSpaceProcess(NoiseSchedule.from_betas(betas), schedule, level_gain=level_gain)


def run_study(config: OracleConfig) -> list[OracleResult]:
    """Every combination of order, eta, number of levels and steps."""
    size = (config.res, config.res)
    data = power_law_covariance(size)
    processes = [
        oracle_process(size, num_levels, config.resolution_gamma, config.level_gain) for num_levels in config.levels
    ]
    chains = [
        (Sampler(eta, order, config.covariance), process, SPACINGS[SPACING_OF_ORDER[order]](process, number))
        for order in config.solver_orders
        for eta in config.etas
        for process in processes
        for number in config.steps
    ]
    results = []
    with tqdm(total=sum(len(timesteps) for *_, timesteps in chains), unit=" steps", delay=2) as progress:
        for sampler, process, timesteps in chains:
            distance = chain_distance(process, data, timesteps, sampler, progress.update)
            levels, cost = len(process.resolution.resolutions), process.resolution.cost(timesteps)
            results.append(OracleResult(sampler.solver_order, sampler.eta, levels, len(timesteps), cost, distance))
    return results


def format_table(results: Sequence[OracleResult]) -> str:
    """One line per chain, for people."""
    lines = [f"{'order':>5} {'eta':>5} {'levels':>7} {'steps':>6} {'cost':>7} {'Frechet distance':>17}"]
    for r in results:
        lines.append(
            f"{r.solver_order:5d} {r.eta:5g} {r.num_levels:7d} {r.num_steps:6d} {r.cost:7.2f} {r.distance:17.4g}"
        )
    return "\n".join(lines)


def plot_results(results: Sequence[OracleResult], path: Path) -> None:
    """Distance against steps and against cost, a row per eta; writes a PNG."""
    etas = list(dict.fromkeys(result.eta for result in results))
    figure, rows = pyplot().subplots(
        len(etas), 2, sharey=True, squeeze=False, figsize=(9.5, 0.8 + 3.4 * len(etas)), layout="constrained"
    )
    for (steps, cost), eta in zip(rows, etas):
        of_eta = [result for result in results if result.eta == eta]
        _draw_panel(steps, of_eta, "num_steps")
        _draw_panel(cost, of_eta, "cost")
        name = {1.0: "eta = 1 (ancestral)", 0.0: "eta = 0 (DDIM)"}.get(eta, f"eta = {eta:g}")
        steps.set(ylabel="Fréchet distance to the data", title=name)
        cost.set(title=name)
    rows[-1, 0].set(xlabel="steps")
    rows[-1, 1].set(xlabel="cost, in steps at full resolution")
    rows[0, 1].legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    save_figure(figure, path)


def _draw_panel(panel: Axes, results: Sequence[OracleResult], across: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    levels = sorted({result.num_levels for result in results})
    for order, style in ((1, "--"), (2, "-")):
        for num_levels, marker, colour in zip(levels, "os^Dv<>", range(10)):
            chosen = [r for r in results if (r.solver_order, r.num_levels) == (order, num_levels)]
            line = sorted((getattr(r, across), max(r.distance, 0)) for r in chosen)
            label = f"{num_levels} level{'s' * (num_levels > 1)}, {'first' if order == 1 else 'second'} order"
            if line:
                panel.plot(*zip(*line), style, marker=marker, color=f"C{colour}", markersize=4, label=label)
    panel.set(xscale="log", yscale="log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.3)


def _require(name: str, values: Sequence[float], low: int, high: int) -> None:
    wrong = [value for value in values if not low <= value <= high]
    if wrong or not values:
        raise UsageError(f"--{name} must be in {low}..{high}, got {wrong[0] if wrong else 'an empty list'}.")


def _check_plot(path: str) -> None:
    """Find out before the work whether the plot can be drawn and written."""
    pyplot()
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
            oracle_process((config.res, config.res), num_levels, config.resolution_gamma, config.level_gain)
        if config.plot:
            _check_plot(config.plot)
    results = run_study(config)
    print(format_table(results))  # noqa: T201
    if config.plot:
        plot_results(results, Path(config.plot))
        print(f"wrote {config.plot}")  # noqa: T201


if __name__ == "__main__":
    main()
