"""The command `ssd`: the project's scripts and commands by one name each, running the same code.

    ssd train --config $(ssd configs)/digits.yaml
    ssd sample --model runs/digits --num 64 --grid grid.png
    accelerate launch -m ssd train ..        # several processes, as with the scripts

In a checkout the scripts are those of train/ and sample/; a wheel holds copies of them, and of configs/, in
ssd/scripts/ (setup.py). After the name come the flags of the script: ssd train --help.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from .errors import UsageError, exit_on_usage_error

COMMANDS = {
    "train": ("train/train_ssd.py", "train Scale Space Diffusion"),
    "train-vdvae": ("train/train_vdvae.py", "train a VDVAE"),
    "sample": ("sample/sample_ssd.py", "draw images"),
    "sample-vdvae": ("sample/sample_vdvae.py", "draw images of a VDVAE"),
    "edit": ("sample/edit_ssd.py", "grow, redraw or fill in pictures"),
    "evaluate": ("sample/eval_fid.py", "distances between drawn and real images"),
    "nll": ("sample/eval_nll.py", "bits per dimension"),
    "prepare": ("ssd.data.prepare", "make a prepared copy of a data set"),
    "calibrate": ("ssd.evaluation.calibrate", "measure how wrong a network's predictions are"),
    "demo": ("ssd.demo.__main__", "a page in the browser: watch, redraw and grow pictures"),
    "convert": ("ssd.publishing.convert", "turn a published checkpoint into a pipeline"),
    "push": ("ssd.publishing.push", "push a model to the Hub"),
}
"""Name -> the script or module that it runs, and what it does."""

CONFIGS = "configs"


def main() -> None:
    """Run the command that the first word names, with the others as its arguments."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(overview())  # noqa: T201
        return
    if name == CONFIGS and not arguments:
        print(folder_of(CONFIGS))  # noqa: T201
        return
    with exit_on_usage_error():
        run = find(name)
    sys.argv = [f"ssd {name}", *arguments]
    run()


def find(name: str) -> Callable[[], None]:
    """What a command runs.

    Raises
    ------
    UsageError
        For a name that is none.
    """
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        meant = f"did you mean {near[0]}? It is" if near else "use"
        raise UsageError(f"Unknown command {name!r}: {meant} one of {', '.join([*COMMANDS, CONFIGS])}.")
    where = COMMANDS[name][0]
    if not where.endswith(".py"):
        return importlib.import_module(where).main
    folder, _, file = where.partition("/")
    return script(folder_of(folder) / file)


def script(path: Path) -> Callable[[], None]:
    """The main function of a script."""
    spec = importlib.util.spec_from_file_location(f"ssd_{path.stem}", path)
    assert spec is not None  # of a file that ends with .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # where dataclasses look for their types
    spec.loader.exec_module(module)
    return module.main


def folder_of(name: str) -> Path:
    """train/, sample/ or configs/: of an installed wheel, else of the checkout."""
    package = Path(__file__).parent.parent
    installed = package / "scripts" / name
    return installed if installed.is_dir() else package.parent / name


def overview() -> str:
    """All commands, a line each."""
    lines = [f"  {name:13} {what}" for name, (_, what) in COMMANDS.items()]
    lines.append(f"  {CONFIGS:13} print the folder of the presets, for --config")
    return "\n".join(["usage: ssd COMMAND ..", "", *lines, "", "ssd COMMAND --help lists the flags of a command."])
