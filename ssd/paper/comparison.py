"""Table 2 in miniature: the same data, network, steps and ruler for every model of the paper.

Each model is trained and measured by the commands that everybody uses, in processes of their own. So the comparison can
be interrupted at any moment: a finished part is not done again, and training continues from its last checkpoint.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm.auto import tqdm

import ssd

from ..commands.errors import RunFailed, UsageError
from ..commands.files import write_json
from ..publishing.saving import load_pipeline
from ..sampling.many_images import SamplingSettings, draw
from ..sampling.pictures import image_grid
from ..training.build import build_scheduler, build_unet
from ..training.checkpoints import find_newest, read_description
from ..training.config import parse_train_config
from ..training.summary import route_costs
from .recipes import RECIPES, SCALES, SHARED, Scale

ROOT = Path(ssd.__file__).parent.parent
SHOWN = 12
"""Images of every model in the picture."""

ROW = "row.png"
"""The picture with these images, beside a model."""


@dataclass
class ComparisonConfig:
    """Settings of the comparison.

    Parameters
    ----------
    data : str
        The data set, by any name that training takes.
    scale : str
        How much is spent on each model. small takes about half an hour on two CPU cores; tiny is for trying out.
    out : str
        The folder for the models, the table and the pictures.
    only : list of str, optional
        The names of the models to train and measure. Default: all.
    steps : int, optional
        Training steps instead of the scale's.
    settings : dict of str to str
        Settings of training for all models, such as '{res: 32, block_out_channels: [32, 64, 128]}'.
    seed : int
        The seed of training and sampling.
    dry_run : bool
        Print the training commands and stop.
    """

    data: str = "digits"
    scale: Literal["tiny", "small"] = "small"
    out: str = "runs/paper_small"
    only: list[str] | None = None
    steps: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    dry_run: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.only or [] if name not in RECIPES]
        if unknown:
            raise UsageError(f"--only has no model {unknown[0]}: use some of {', '.join(RECIPES)}.")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"--steps must be at least 1, got {self.steps}.")

    @property
    def names(self) -> list[str]:
        """The models, in the order of the table."""
        return [name for name in RECIPES if self.only is None or name in self.only]

    @property
    def spent(self) -> Scale:
        """The scale, with --steps."""
        scale = SCALES[self.scale]
        return scale if self.steps is None else Scale(self.steps, scale.images, scale.sampling_steps)


def train_flags(config: ComparisonConfig, name: str) -> list[str]:
    """The flags of `train/train_ssd.py` for one model."""
    given = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.settings.items()}
    settings = SHARED | {"data": config.data} | given | RECIPES[name][1] | {"seed": str(config.seed)}
    settings |= {"max_steps": str(config.spent.steps), "out": str(Path(config.out) / name)}
    return [word for key, value in settings.items() for word in (f"--{key}", value)]


def compare(config: ComparisonConfig) -> list[dict[str, Any]]:
    """Train and measure every model; returns the rows of the table, and writes them to comparison.json."""
    check_commands()
    for name in config.names:  # what is wrong with the settings is said before the first step
        described = parse_train_config(train_flags(config, name))
        build_scheduler(described)
        with torch.device("meta"):
            build_unet(described)
    rows = []
    with tqdm(config.names, desc="comparison", unit=" models") as bar:
        for name in bar:
            bar.set_postfix_str(name)
            train(config, name)
            rows.append(measure(config, name))
            write_json(Path(config.out) / "comparison.json", {"settings": asdict(config), "rows": rows})
    return rows


def train(config: ComparisonConfig, name: str) -> None:
    """Train one model, or what is missing of its steps.

    Raises
    ------
    RunFailed
        When training was told to stop, which is no failure of its own: an unfinished model is not measured.
    """
    if trained_steps(config, name) < config.spent.steps:
        run_command("train/train_ssd.py", [*train_flags(config, name), "--resume"], Path(config.out) / f"{name}.log")
    if (done := trained_steps(config, name)) < config.spent.steps:
        raise RunFailed(
            f"The training of {name} was stopped after {done} of {config.spent.steps} steps: run the same command to "
            "continue."
        )


def trained_steps(config: ComparisonConfig, name: str) -> int:
    """The steps of a model's newest checkpoint; 0 without one."""
    checkpoint, _ = find_newest(Path(config.out) / name / "checkpoints")
    return 0 if checkpoint is None else read_description(checkpoint).progress.step


def measure(config: ComparisonConfig, name: str) -> dict[str, Any]:
    """Distances, cost and seconds of one trained model, and its row of images; kept in measured.json."""
    model, spent = Path(config.out) / name, config.spent
    kept = model / "measured.json"
    asked = {"spent": asdict(spent), "data": config.data, "seed": config.seed, "step": trained_steps(config, name)}
    if kept.exists() and (found := json.loads(kept.read_text()))["asked"] == asked:
        return dict(found["row"])
    flags = {"model": model, "ref": config.data, "features": "pixels", "num": spent.images, "seed": config.seed}
    flags |= {"sampler": "paper", "steps": spent.sampling_steps, "out": model / "report"}
    words = [str(word) for key, value in flags.items() for word in (f"--{key}", value)]
    run_command("sample/eval_fid.py", [*words, "--overwrite"], Path(config.out) / f"{name}.log")
    report = json.loads((model / "report" / "report.json").read_text())
    row = {"name": name, "title": RECIPES[name][0]} | chosen_metrics(report["metrics"]) | costs(config, name)
    write_json(kept, {"asked": asked, "row": row})
    return row


def chosen_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a report that the table shows."""
    names = {
        "frechet_distance_pixels": "frechet_pixels",
        "frechet_distance_pixels_standard_error": "frechet_standard_error",
        "swd": "sliced_wasserstein",
        "mean_top_probability": "classifier",
    }
    return {short: metrics[name] for name, short in names.items() if name in metrics}


def costs(config: ComparisonConfig, name: str) -> dict[str, float]:
    """GFLOPs per image and step, training minutes, and seconds per image; writes the model's row of images."""
    model, spent = Path(config.out) / name, config.spent
    checkpoint, _ = find_newest(model / "checkpoints")
    assert checkpoint is not None  # it was just trained
    pipeline = load_pipeline(str(model))
    pipeline.set_progress_bar_config(disable=True)
    total = sum(count * gflops for _, count, gflops in route_costs(pipeline.unet, pipeline.scheduler))
    settings = SamplingSettings(sampler="paper", steps=spent.sampling_steps, seed=config.seed).prepare(pipeline)
    draw(pipeline, range(SHOWN), SamplingSettings(steps=len(pipeline.scheduler.resolutions), seed=config.seed))
    start = time.perf_counter()
    images = draw(pipeline, range(SHOWN), settings)
    seconds = time.perf_counter() - start
    image_grid(images, columns=SHOWN).save(model / ROW)
    return {
        # Corrective noise makes some steps twice: its whole chain is set against the others' 1000 steps.
        "gflops_per_step": total / pipeline.scheduler.config.num_train_timesteps,
        "training_minutes": 60 * read_description(checkpoint).progress.hours,
        "seconds_per_image": seconds / SHOWN,
    }


def run_command(script: str, flags: list[str], log: Path) -> None:
    """Run a script of the repository; its words go to `log`, its progress bars to the terminal.

    Raises
    ------
    RunFailed
        When it fails, with the end of what it said.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as words:
        done = subprocess.run([sys.executable, str(ROOT / script), *flags], cwd=Path.cwd(), stdout=words)
    if done.returncode:
        raise RunFailed(f"{script} failed with exit code {done.returncode}: its message is above, its output in {log}.")


def check_commands() -> None:
    """Raise a `UsageError` where the repository's scripts are not at hand."""
    if not (ROOT / "train/train_ssd.py").is_file():
        raise UsageError(
            f"The comparison runs train/train_ssd.py, which is not in {ROOT}: run it from a clone of the repository."
        )
