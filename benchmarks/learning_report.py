"""The table and the plot of `learning.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learning_rulers import MAIN

from ssd.commands.drawing import pyplot
from ssd.commands.files import whole_file

REAL = "real images"


@dataclass(frozen=True)
class Point:
    """One measurement: what `learning_rulers.py` found of a run at a mark."""

    arm: str
    seed: int
    mark: float
    found: dict[str, Any]

    def __call__(self, *path: str) -> float | None:
        """A number by its names, such as ("metrics", "swd"); None if it was not measured."""
        value: Any = self.found
        for name in path:
            value = value.get(name, {})
        return None if value == {} else float(value)

    @property
    def main(self) -> float:
        return float(self.found["metrics"][MAIN])

    @property
    def half_interval(self) -> float:
        """Half the length of the bootstrap interval of the main distance."""
        metrics = self.found["metrics"]
        return (metrics[f"{MAIN}_bootstrap_high"] - metrics[f"{MAIN}_bootstrap_low"]) / 2


Column = Callable[[Point], float | None]

LEARNED: dict[str, Column] = {
    "training steps": lambda point: point("training", "steps"),
    "Frechet, EfficientNet": lambda point: point.main,
    "± 95 %": lambda point: point.half_interval,
    "Frechet, 8 x 8 pixels": lambda point: point("metrics", "frechet_distance_pixels"),
    "sliced Wasserstein": lambda point: point("metrics", "swd"),
    "bits per dimension": lambda point: point("metrics", "bits_per_dim"),
    "its standard error": lambda point: point("metrics", "bits_per_dim_standard_error"),
}
DETAILS: dict[str, Column] = {
    "EfficientNet: mean shift": lambda point: point("metrics", f"{MAIN}_mean_shift"),
    "variance ratio": lambda point: point("metrics", f"{MAIN}_variance_ratio"),
    "pixels: mean shift": lambda point: point("metrics", "frechet_distance_pixels_mean_shift"),
    "pixels: variance ratio": lambda point: point("metrics", "frechet_distance_pixels_variance_ratio"),
}
COSTS: dict[str, Column] = {
    "training seconds": lambda point: point("training", "seconds"),
    "GFLOPs of a training image": lambda point: point("training", "gflops_per_image"),
    "sampling steps": lambda point: point("sampling", "steps"),
    "GFLOPs of a sampled image": lambda point: point("sampling", "gflops"),
}


def report(points: Sequence[Point], real: dict[str, Any], given: str) -> str:
    """All tables, Markdown; `given` says which images the likelihood and the residuals are of."""
    real_point = Point(REAL, 0, 0.0, real)
    residuals = {name: _residual(name) for name in residual_names(points)}
    return "\n\n".join(
        [
            "Means over the seeds, and [lowest, highest]. The ratio is that of the EfficientNet distance to the first "
            "arm's; lower in: for so many of the seeds it is lower than the first arm's. ± 95 %: half the bootstrap "
            "interval of a run's EfficientNet distance over its images.",
            _table(points, LEARNED, real_point, against_first=True),
            f"Bits per dimension and residuals are of {given}. Residual: squared error of the network over that of the "
            "best linear estimate; 1 is no better than a linear filter.",
            _table(points, residuals),
            "How the distances come about: squared distance of the means, and total variance over the data's.",
            _table(points, DETAILS, real_point),
            "Costs. GFLOPs are of the way forward.",
            _table(points, COSTS),
        ]
    )


def residual_names(points: Sequence[Point]) -> list[str]:
    """The levels of all arms, finest first, then the changes."""
    names = dict.fromkeys(name for point in points for name in point.found["residuals"])
    return sorted(names, key=lambda name: ("->" in name, -int(name.split(" -> ")[-1].split()[0])))


def _residual(name: str) -> Column:
    return lambda point: point("residuals", name)


def _table(
    points: Sequence[Point], columns: dict[str, Column], real: Point | None = None, against_first: bool = False
) -> str:
    titles = ["arm", "minutes", *columns, *(["ratio", "lower in"] if against_first else [])]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for mark in sorted({point.mark for point in points}):
        there = [point for point in points if point.mark == mark]
        first = [point for point in there if point.arm == points[0].arm]
        for arm in dict.fromkeys(point.arm for point in there):
            own = [point for point in there if point.arm == arm]
            cells = [arm, f"{mark:g}", *(spread([column(point) for point in own]) for column in columns.values())]
            lines.append(f"| {' | '.join(cells + (compared(own, first) if against_first else []))} |")
    if real is not None:
        cells = [real.arm, "", *(spread([column(real)]) for column in columns.values())]
        lines.append(f"| {' | '.join(cells + ([''] * 2 if against_first else []))} |")
    return "\n".join(lines)


def compared(own: Sequence[Point], first: Sequence[Point]) -> list[str]:
    """The ratio of the mean main distances, and in how many of the common seeds one's own is lower."""
    if own[0].arm == first[0].arm:
        return ["1", ""]
    theirs = {point.seed: point.main for point in first}
    pairs = [(point.main, theirs[point.seed]) for point in own if point.seed in theirs]
    if not pairs:
        return ["", ""]
    ratio = sum(one for one, _ in pairs) / sum(other for _, other in pairs)
    return [f"{ratio:.3f}", f"{sum(one < other for one, other in pairs)} of {len(pairs)}"]


def spread(values: Sequence[float | None]) -> str:
    """Mean [lowest, highest]; nothing for what was not measured.

    Examples
    --------
    >>> spread([1.0, 2.0]), spread([1.0]), spread([None])
    ('1.5 [1, 2]', '1', '')
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean, low, high = (number(value) for value in (sum(known) / len(known), min(known), max(known)))
    return mean if low == high else f"{mean} [{low}, {high}]"


def number(value: float) -> str:
    """Four digits, and whole numbers whole."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def draw(points: Sequence[Point], real: dict[str, Any], path: Path) -> None:
    """The main distance against training minutes, and the residuals at the last mark; needs matplotlib."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.5), layout="constrained")
    names, last = residual_names(points), max(point.mark for point in points)
    arms = list(dict.fromkeys(point.arm for point in points))
    for place, arm in enumerate(arms):
        own = [point for point in points if point.arm == arm]
        marks = sorted({point.mark for point in own})
        mean, low, high = _curve([[p.main for p in own if p.mark == mark] for mark in marks])
        (line,) = left.plot(marks, mean, marker="o", label=arm)
        left.fill_between(marks, low, high, color=line.get_color(), alpha=0.2)
        ends = [point.found["residuals"] for point in own if point.mark == last]
        known = [name for name in names if any(name in end for end in ends)]
        mean, low, high = _curve([[end[name] for end in ends] for name in known])
        errors = [[m - b for m, b in zip(mean, low)], [t - m for m, t in zip(mean, high)]]
        beside = 0.4 * (place - (len(arms) - 1) / 2) / len(arms)  # or the arms would hide each other
        places = [names.index(name) + beside for name in known]
        right.errorbar(places, mean, errors, marker="o", linestyle="", capsize=3, color=line.get_color())
    left.axhline(real["metrics"][MAIN], color="k", linestyle="--", linewidth=1, label=REAL)
    left.set(xlabel="training minutes", ylabel="Frechet distance of EfficientNet-Lite0", yscale="log")
    left.legend()
    right.axhline(1, color="k", linestyle=":", linewidth=1)
    right.set_xticks(range(len(names)), names, rotation=30, ha="right")
    right.set(yscale="log", ylabel="squared error over a linear filter's", title=f"after {last:g} minutes")
    for axis in (left, right):
        axis.grid(alpha=0.3, which="both")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def _curve(groups: Sequence[Sequence[float]]) -> tuple[list[float], list[float], list[float]]:
    """Means, lowest and highest of every group."""
    return [sum(g) / len(g) for g in groups], [min(g) for g in groups], [max(g) for g in groups]
