"""Repeat the experiments of the Scale Space Diffusion paper (arXiv:2603.08709).

    python -m ssd.paper --scale small                       # table 2 in miniature, on handwritten digits
    python -m ssd.paper --data folder:/data/icons --out runs/icons --settings '{res: 32}' --only '[ddpm_x0, ssd_3l]'
    python -m ssd.paper figures --out docs/images           # what the paper's figures show, from closed forms
    python -m ssd.paper tables                              # GFLOPs of every row, seconds on this machine

The comparison trains every model for equally many steps and measures all with the same ruler; docs/paper.md says what
each table and figure shows and what it takes at full size. It continues where it was interrupted.
"""

from __future__ import annotations

import shlex

from ..commands.drawing import pyplot
from ..commands.errors import exit_on_usage_error
from ..commands.parser import CommandParser
from .comparison import ComparisonConfig, compare, train_flags
from .figures import FiguresConfig, draw_figures
from .showing import table, write_results
from .tables import TablesConfig, show_tables


def main(arguments: list[str] | None = None) -> None:
    parser = CommandParser(description=__doc__)
    parser.add_class_arguments(ComparisonConfig)
    for name, settings in (("figures", FiguresConfig), ("tables", TablesConfig)):
        subparser = CommandParser(description=settings.__doc__)
        subparser.add_class_arguments(settings)
        parser.add_subcommand(name, subparser)
    with exit_on_usage_error(ValueError, OSError):
        given = parser.parse_args(arguments).as_dict()
        if "figures" in given:
            draw_figures(FiguresConfig(**given["figures"]))
        elif "tables" in given:
            show_tables(TablesConfig(**given["tables"]))
        else:
            show_comparison(ComparisonConfig(**given))


def show_comparison(config: ComparisonConfig) -> None:
    """Train, measure, print and write."""
    if config.dry_run:
        for name in config.names:
            print("accelerate launch train/train_ssd.py", shlex.join(train_flags(config, name)))  # noqa: T201
        return
    pyplot()  # a missing one is told before the training, not after it
    rows = compare(config)
    print(table(rows))  # noqa: T201
    for path in write_results(config, rows):
        print(f"wrote {path}")  # noqa: T201


if __name__ == "__main__":
    main()
