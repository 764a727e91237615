"""A table of rules for switches: their timesteps, what a step costs, and what two samplers make of the schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tqdm.auto import tqdm

from ...process.resolution import ResolutionSchedule
from ...process.scale_space import ScaleSpaceProcess
from ...process.spacing import SPACINGS
from ...process.switches import mean_cost
from ..reverse_chain import Sampler, chain_distance
from .rules import LARGEST_MISSING, RULES, Evidence, as_switches, first_timesteps

SAMPLERS = {"ancestral, 40-60": (1, "linspace", (40, 50, 60)), "second, 16-24": (2, "logsnr", (16, 20, 24))}
"""Name -> order, spacing, numbers of steps; eta is 1. Where the grid of steps meets a switch is chance: one number of
steps alone would rank schedules by luck."""


@dataclass(frozen=True)
class RuleRow:
    """One schedule.

    Attributes
    ----------
    rule : str
    threshold : float or None
    first : list of int or None
        The first timestep of every coarser level by the rule, each on its own.
    switches : list of int or None
        The ascending switches, where every level has one.
    cost : float or None
        Pixels that the network predicts per step, relative to one level.
    distances : dict
        Sampler -> squared Frechet distances from Gaussian images of the data's covariance, with a perfect network,
        ascending, one for each number of steps; empty for images of more than `LARGEST_MISSING` pixels.
    """

    rule: str
    threshold: float | None
    first: list[int | None]
    switches: list[int] | None
    cost: float | None
    distances: dict[str, list[float]]


def rule_table(evidence: Evidence, thresholds: dict[str, float | None]) -> list[RuleRow]:
    """All rules, after one level and the paper's schedule; `thresholds` in place of the rules' own, where not None."""
    T = evidence.noise.num_timesteps
    sizes = [operator.out_size for operator in evidence.information.statistics.operators]
    covariance = evidence.information.statistics.covariance
    small = covariance is not None and len(covariance) <= LARGEST_MISSING
    convex = list(ResolutionSchedule.from_curve(sizes, T).level_starts[1:])
    found: list[tuple[str, float | None, list[int | None]]] = [
        ("one level", None, []),
        ("convex_decay 0.5", None, [*convex]),
    ]
    for name, rule in RULES.items():
        if name != "missing_variance" or small:
            own = thresholds.get(name) or rule.threshold
            found.append((name, own, first_timesteps(evidence, name, own)))
    rows = []
    for name, threshold, first in tqdm(found, desc="schedules", unit=" schedules", delay=2):
        switches = as_switches(first, T)
        if switches is None:
            rows.append(RuleRow(name, threshold, first, None, None, {}))
            continue
        resolution = ResolutionSchedule.from_switches(sizes[: len(switches) + 1], T, switches)
        distances = _distances(evidence, resolution) if small else {}
        rows.append(RuleRow(name, threshold, first, switches, mean_cost(resolution), distances))
    return rows


def _distances(evidence: Evidence, resolution: ResolutionSchedule) -> dict[str, list[float]]:
    process = ScaleSpaceProcess(evidence.noise, resolution, evidence.kernel)
    covariance = evidence.information.statistics.covariance
    assert covariance is not None, "asked for small images alone"
    return {
        name: sorted(
            chain_distance(process, covariance, SPACINGS[spacing](process, steps), Sampler(1.0, order))
            for steps in numbers
        )
        for name, (order, spacing, numbers) in SAMPLERS.items()
    }


def format_table(rows: Sequence[RuleRow]) -> str:
    """One line per rule, for people."""
    lists = ["/".join("never" if t is None else str(t) for t in row.first) for row in rows]
    width = max(map(len, [*lists, "first timesteps"]))
    samplers = list(SAMPLERS) if any(row.distances for row in rows) else []
    lines = [
        f"{'rule':17} {'threshold':>9}  {'first timesteps':{width}} {'cost':>6}"
        + "".join(f"  {s:>23}" for s in samplers)
    ]
    for row, first in zip(rows, lists):
        threshold = "" if row.threshold is None else f"{row.threshold:g}"
        cost = "" if row.cost is None else f"{row.cost:.3f}"
        values = "".join(f"  {_median_and_range(row.distances[s]):>23}" for s in samplers if row.distances)
        lines.append(f"{row.rule:17} {threshold:>9}  {first:{width}} {cost:>6}{values}")
    return "\n".join(lines)


def _median_and_range(values: list[float]) -> str:
    return f"{values[len(values) // 2]:.3g} ({values[0]:.3g} .. {values[-1]:.3g})"
