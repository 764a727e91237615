"""Loss curves of runs, side by side.

    python -m ssd.training.plot runs/faces_2l runs/faces_4l --out curves.png

One panel for the mean loss, and one per level or for held-out images, from the `log.csv` of every run; needs
matplotlib (extra `analysis`).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from ..commands.drawing import pyplot, save_figure
from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.output_paths import check_output_file
from ..commands.parser import CommandParser


@dataclass
class PlotConfig:
    """Settings of the plot command.

    Parameters
    ----------
    runs : list of str
        The folders of training runs.
    out : str
        The PNG to write.
    smooth : int
        The number of lines of log.csv per point, which is their mean.
    """

    runs: list[str]
    out: str = "curves.png"
    smooth: int = 1


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error():
        parser = CommandParser(prog="python -m ssd.training.plot", description=__doc__)
        parser.add_argument("runs", nargs="+", type=str, help="The folders of training runs.")
        parser.add_class_arguments(PlotConfig, skip={"runs"})
        config = PlotConfig(**parser.parse_args(arguments).as_dict())
        if config.smooth < 1:
            raise UsageError(f"--smooth must be at least 1, got {config.smooth}.")
        check_output_file(config.out, "--out", ".png")
        curves = {run: read_losses(Path(run), config.smooth) for run in config.runs}
        draw(curves, Path(config.out))
    print(f"wrote {config.out}")  # noqa: T201


def read_losses(run: Path, smooth: int = 1) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and losses by column ("loss", "loss_64x64", "valid_loss", ..), means over `smooth` lines.

    Levels that were not seen are left out.
    """
    path = run / "log.csv"
    if not path.is_file():
        raise UsageError(f"{run} has no log.csv: give the --out folder of a training run.")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    curves = {}
    for column in (name for name in (rows[0] if rows else {}) if name.startswith(("loss", "valid_loss"))):
        seen = [(float(row["step"]), float(row[column])) for row in rows if row[column]]
        chunks = [seen[i : i + smooth] for i in range(0, len(seen), smooth)]
        curves[column] = (
            [chunk[-1][0] for chunk in chunks],
            [sum(loss for _, loss in chunk) / len(chunk) for chunk in chunks],
        )
    if not curves:
        raise UsageError(f"{path} has no lines yet: wait for the first --log_every steps.")
    return curves


def draw(curves: dict[str, dict[str, tuple[list[float], list[float]]]], out: Path) -> None:
    """One panel per column, one line per run, logarithmic losses."""
    columns = list(dict.fromkeys(column for run in curves.values() for column in run))
    figure, axes = pyplot().subplots(
        1, len(columns), figsize=(4 * len(columns), 3.2), squeeze=False, layout="constrained"
    )
    for axis, column in zip(axes[0], columns):
        for run, lines in curves.items():
            if column in lines:
                axis.plot(*lines[column], label=run, linewidth=1)
        axis.set(title=column.replace("loss_", "loss at "), xlabel="step", yscale="log")
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize="small")
    save_figure(figure, out)


if __name__ == "__main__":
    main()
