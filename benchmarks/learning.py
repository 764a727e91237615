"""Which training recipe learns better at equal cost? Runs of train/train_ssd.py, measured after equal training time.

python benchmarks/learning.py --data npz:train.npz --held_out npz:held.npz --minutes 5,10 --seeds 0,1,2
python benchmarks/learning.py --arms my_arms.yaml --data digits --minutes 0.5,1 --seeds 0 --num 128 --out runs/try

An arm is a named set of settings of the training command, in a YAML file such as benchmarks/learning.yaml. Every arm is
trained with every seed, and measured at every mark of --minutes, counted in minutes of training. Between two marks the
runs take turns, so that whatever else the machine does slows all arms alike. An arm with the key `time`, such as 0.65,
gets that share of the minutes. An arm whose learning rate falls needs to know its number of steps: without max_steps a
short pilot finds how many fit into the last mark, and earlier marks are then in the middle of its way. Interrupted
(SIGTERM and Ctrl-C stop the runs too, which save), the same command goes on; when everything is done it prints the
tables again. They are written to OUT/table.md, with OUT/plot.png and, for every measurement, numbers and a picture:
OUT/ARM/seed_0/mark_5.json and .png.

Rulers, all without downloads (the extra `features` has EfficientNet's weights): Frechet distances of 8 x 8 pixels and
of EfficientNet-Lite0, the latter with a bootstrap interval over the generated images (B = 100), sliced Wasserstein
distance; of held-out images bits per dimension, and the squared error over a linear filter's, per level and change.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from learning_processes import end_on_sigterm, last_line, run_command, workers
from learning_report import Point, draw, report
from learning_rulers import newest_state
from measuring import read_settings
from tqdm.auto import tqdm

from ssd.commands.errors import RunFailed, UsageError, exit_on_usage_error
from ssd.commands.files import write_text
from ssd.commands.lock import hold_folder
from ssd.commands.settings_file import read_settings as read_yaml
from ssd.training.config import parse_train_config

FOLDER = Path(__file__).parent
TRAIN, RULERS = FOLDER.parent / "train" / "train_ssd.py", FOLDER / "learning_rulers.py"

OURS = ("out", "seed", "max_minutes", "resume", "overwrite", "dry_run")
"""Settings of training that no arm may have."""

SHARED = ("data", "res", "channels", "crop_preset", "background")
"""Settings that all arms must share, or their distances are to different images."""

TIME = "time"
"""The key of an arm that is not a setting of training: its share of the minutes."""

PILOT = 0.05
"""Share of the last mark."""

QUIET: dict[str, Any] = {"sample_every": 0, "save_every": 10**9, "report_to": "none"}
"""Settings of training that an arm has unless it says otherwise: nothing but training costs time."""


@dataclass
class LearningBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    arms : str
        The YAML file of the arms.
    data : str, optional
        The training data of all arms. Default: what the file says.
    held_out : str, optional
        Data that the runs do not learn from, for likelihood, residuals and the row of real images. Default: parts of
        the training data.
    minutes : str
        Training minutes at which every run is measured, with commas between.
    seeds : str
        Seeds of the runs, with commas between.
    num : int
        Images that are drawn for a measurement.
    num_held_out : int
        Held-out images whose likelihood and residuals are measured.
    jobs : int
        Runs at once; they share the cores.
    out : str
        The folder for everything.
    """

    arms: str = str(FOLDER / "learning.yaml")
    data: str | None = None
    held_out: str | None = None
    minutes: str = "5,10"
    seeds: str = "0,1,2"
    num: int = 2048
    num_held_out: int = 200
    jobs: int = 1
    out: str = "runs/learning"

    def __post_init__(self) -> None:
        for name, low in (("num", 4), ("num_held_out", 2), ("jobs", 1)):
            if getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")
        self.marks = sorted(set(_numbers("minutes", self.minutes, float)))
        self.seed_list = list(dict.fromkeys(_numbers("seeds", self.seeds, int)))
        if self.marks[0] <= 0 or not math.isfinite(self.marks[-1]):
            raise UsageError(f"--minutes must be positive, got {self.minutes}.")
        if min(self.seed_list) < 0:
            raise UsageError(f"--seeds must be at least 0, got {self.seeds}.")

    @property
    def threads(self) -> int:
        """Of every process."""
        return max(1, len(os.sched_getaffinity(0)) // self.jobs)


def _numbers(name: str, text: str, kind: type) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--{name} must be numbers with commas between, got {text!r}.") from None


def main() -> None:
    end_on_sigterm()
    with exit_on_usage_error():
        settings = read_settings(LearningBenchmark, __doc__)
        arms = read_arms(settings)
        with hold_folder(settings.out) as note:
            if note:
                print(f"note: {note}", file=sys.stderr)
            claim(settings, arms)
            check_marks(runs_of(settings, arms), settings.marks)
            steps = pilots(settings, arms)
            print(run_all(settings, runs_of(settings, {name: arm | steps[name] for name, arm in arms.items()})))


def read_arms(settings: LearningBenchmark) -> dict[str, dict[str, Any]]:
    """Name -> the settings of training that make an arm; all are checked as the training command does."""
    content = read_yaml(settings.arms)
    if not set(content) <= {"common", "arms"} or not isinstance(content.get("arms"), dict) or not content["arms"]:
        raise UsageError(f"{settings.arms} must have arms (name: settings) and may have common, got {list(content)}.")
    common, arms, configs = content.get("common") or {}, {}, {}
    for name, own in content["arms"].items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", str(name)) or str(name) == "reference":
            raise UsageError(f"{settings.arms}: {name!r} is no name of an arm: use letters, digits, _ and -.")
        if not isinstance(own or {}, dict) or not isinstance(common, dict):
            raise UsageError(f"{settings.arms}: {name} and common must be settings (name: value).")
        arm = copy.deepcopy(common | (own or {})) | ({"data": settings.data} if settings.data else {})
        if taken := [key for key in OURS if key in arm]:
            raise UsageError(f"{settings.arms}: {name} sets {taken[0]}, which the benchmark sets: leave it out.")
        if not isinstance(arm.get(TIME, 1), (int, float)) or not 0 < arm.get(TIME, 1) <= 1:
            raise UsageError(f"{settings.arms}: the {TIME} of {name} must be in (0, 1], got {arm[TIME]}.")
        arms[str(name)] = arm
        configs[str(name)] = parse_train_config(_flags(arm | {"out": settings.out}))
    first, one = next(iter(configs.items()))
    for name, other in configs.items():
        for key in SHARED:
            if getattr(other, key) != getattr(one, key):
                raise UsageError(f"{settings.arms}: {first} and {name} have different {key}: all arms must share it.")
    return arms


def _flags(settings: dict[str, Any]) -> list[str]:
    """Settings of training as words of a command line."""
    words = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in settings.items()]
    return [f"--{key}={word}" for key, word in words if key != TIME]


def claim(settings: LearningBenchmark, arms: dict[str, dict[str, Any]]) -> None:
    """Make sure that OUT is new, or of the same arms and rulers; of a new one, that every arm can be trained."""
    path = Path(settings.out) / "arms.yaml"
    rulers = {"num": settings.num, "held_out": settings.held_out, "num_held_out": settings.num_held_out}
    if any(needs_pilot(arm) for arm in arms.values()):
        rulers["last_of_minutes"] = settings.marks[-1]  # learning rates have fallen to 0 by then
    content: dict[str, dict[str, Any]] = {"rulers": rulers, "arms": arms}
    if path.exists():
        before = read_yaml(path)
        changed = [
            name
            for part in content
            for name in {**before.get(part, {}), **content[part]}
            if before.get(part, {}).get(name) != content[part].get(name)
        ]
        if changed or list(before["arms"]) != list(arms):
            raise UsageError(
                f"--out {settings.out} is of other arms or rulers ({', '.join(changed) or 'in another order'} changed, "
                f"see {path}): give another folder."
            )
        return
    for name, arm in tqdm(arms.items(), desc="checking", unit=" arms"):
        flags = _flags(QUIET | arm | {"out": str(Path(settings.out) / name / "check")})
        done = subprocess.run([sys.executable, str(TRAIN), *flags, "--dry_run"], capture_output=True, text=True)
        if done.returncode:
            raise UsageError(f"The arm {name} cannot be trained: {last_line(done.stderr)}")
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def pilots(settings: LearningBenchmark, arms: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Name -> the number of steps that fit into the last mark, for arms that need one.

    The pilots run as many at once as the runs do, and write OUT/ARM/pilot.json.
    """
    wanted = [name for name, arm in arms.items() if needs_pilot(arm)]
    with workers(settings.jobs) as pool:
        found = pool.map(lambda name: pilot(settings, name, arms[name]), wanted)
        steps = dict(zip(wanted, tqdm(found, desc="pilots", total=len(wanted), unit=" arms", disable=not wanted)))
    return {name: {"max_steps": steps[name]} if name in steps else {} for name in arms}


def needs_pilot(arm: dict[str, Any]) -> bool:
    """Whether an arm's learning rate falls, over a number of steps that it does not say."""
    return arm.get("lr_scheduler", "constant") != "constant" and arm.get("max_steps") is None


def pilot(settings: LearningBenchmark, name: str, arm: dict[str, Any]) -> int:
    """How many steps an arm makes until the last mark."""
    path = Path(settings.out) / name / "pilot.json"
    minutes = settings.marks[-1] * arm.get(TIME, 1)
    if not path.exists():
        run = Run(settings, name, -1, arm)
        flags = ["--config", str(run.write_settings()), "--max_minutes", f"{PILOT * minutes:.9f}", "--overwrite"]
        run_command([str(TRAIN), *flags], run.folder / "log.txt", settings.threads)
        state = newest_state(run.folder / "run")
        assert state is not None  # a run that stops saves
        write_text(path, json.dumps({"steps_per_minute": state.progress.step / (60 * state.progress.hours)}))
        shutil.rmtree(run.folder)
    return max(1, round(json.loads(path.read_text())["steps_per_minute"] * minutes))


class Run:
    """One arm with one seed.

    Parameters
    ----------
    settings : LearningBenchmark
    arm : str
    seed : int
        -1 for the pilot.
    training : dict
        Settings of training, and `TIME`.
    """

    def __init__(self, settings: LearningBenchmark, arm: str, seed: int, training: dict[str, Any]) -> None:
        self.arm, self.seed = arm, seed
        self.folder = Path(settings.out) / arm / f"seed_{seed}"
        self._settings = settings
        self._time = training.get(TIME, 1)
        self._training = {"cpu_threads": settings.threads} | QUIET | training
        self._training |= {"out": str(self.folder / "run"), "seed": max(seed, 0), "resume": True}
        self._training.pop(TIME, None)

    def write_settings(self) -> Path:
        """The YAML file with which anybody can continue the run."""
        path = self.folder / "settings.yaml"
        write_text(path, yaml.safe_dump(self._training, sort_keys=False, allow_unicode=True))
        return path

    def numbers(self, mark: float) -> Path:
        """The file of a measurement."""
        return self.folder / f"mark_{mark:g}.json"

    def bring_to(self, mark: float) -> None:
        """Train up to a mark, and measure, what of both is still to do."""
        if self.numbers(mark).exists():
            return
        settings = self.write_settings()
        if (left := self._minutes_left(mark)) > 0:
            command = [str(TRAIN), "--config", str(settings), "--max_minutes", f"{left:.9f}"]
            run_command(command, self.folder / "log.txt", self._settings.threads)
        if self._minutes_left(mark) > 0:
            raise RunFailed(f"The training of {self.folder} was stopped: run the same command to continue.")
        measure(self._settings, settings, self.numbers(mark), self.folder / "run")

    def _minutes_left(self, mark: float) -> float:
        """0 also for a run that has made all its steps."""
        before = newest_state(self.folder / "run")
        if before is None:
            return mark * self._time
        left = mark * self._time - 60 * before.progress.hours
        if -left > 0.5 + mark / 4:  # further than a slow last step explains
            raise UsageError(
                f"{self.folder} was trained for {60 * before.progress.hours:.3g} minutes already, past the mark "
                f"{mark:g}: give later --minutes, or another --out."
            )
        finished = before.progress.step >= before.settings["max_steps"]
        return 0.0 if finished or left < 1e-6 else left


def runs_of(settings: LearningBenchmark, arms: dict[str, dict[str, Any]]) -> list[Run]:
    """In the order in which they take turns."""
    return [Run(settings, name, seed, arm) for seed in settings.seed_list for name, arm in arms.items()]


def check_marks(runs: list[Run], marks: list[float]) -> None:
    """Refuse a mark before one that was measured, which a run is past."""
    for run in runs:
        measured = [float(path.stem.removeprefix("mark_")) for path in run.folder.glob("mark_*.json")]
        missed = [mark for mark in marks if not run.numbers(mark).exists() and mark < max(measured, default=0.0)]
        if missed:
            raise UsageError(
                f"--minutes {missed[0]:g}: {run.folder} is past it, at {max(measured):g}: give later ones, or another "
                "--out."
            )


def run_all(settings: LearningBenchmark, runs: list[Run]) -> str:
    """Bring all runs to all marks; returns the tables, and writes them and the plot after every mark."""
    out = Path(settings.out)
    real = out / "real.json"
    if not real.exists():
        measure(settings, runs[0].write_settings(), real)
    text = ""
    with tqdm(total=len(runs) * len(settings.marks), desc="learning", unit=" measurements") as bar:
        for mark in settings.marks:
            with workers(settings.jobs) as pool:
                futures = [pool.submit(run.bring_to, mark) for run in runs]
                for future in futures:
                    future.add_done_callback(lambda done: None if done.cancelled() else bar.update())
                wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if not future.cancelled():
                    future.result()
            text = write_report(settings, runs, json.loads(real.read_text()))
    return text


def write_report(settings: LearningBenchmark, runs: list[Run], real: dict[str, Any]) -> str:
    """The tables of all marks that were asked for so far, and the plot where there is matplotlib."""
    points = [
        Point(run.arm, run.seed, mark, json.loads(run.numbers(mark).read_text()))
        for mark in settings.marks
        for run in runs
        if run.numbers(mark).exists()
    ]
    out, text = Path(settings.out), report(points, real, settings.held_out or "training images")
    write_text(out / "table.md", text + "\n")
    if importlib.util.find_spec("matplotlib"):
        draw(points, real, out / "plot.png")
    return text


def measure(settings: LearningBenchmark, training: Path, out: Path, model: Path | None = None) -> None:
    """Measure a run, or real images, into a JSON file and a picture beside it."""
    flags: dict[str, Any] = {"settings": training, "reference": Path(settings.out) / "reference", "out": out}
    flags |= {"num": settings.num, "num_held_out": settings.num_held_out, "threads": settings.threads}
    flags |= {"model": model} if model else {}
    flags |= {"held_out": settings.held_out} if settings.held_out else {}
    words = [f"--{key}={value}" for key, value in flags.items()]
    run_command([str(RULERS), *words], out.parent / "log.txt", settings.threads)


if __name__ == "__main__":
    main()
