"""`python -m ssd.paper`: figures, tables, and the comparison in miniature."""

import json
import sys

import pytest
from PIL import Image

from ssd.commands.errors import RunFailed, UsageError
from ssd.paper import comparison
from ssd.paper.__main__ import main
from ssd.paper.comparison import ComparisonConfig, train_flags
from ssd.paper.recipes import RECIPES
from ssd.paper.showing import table
from ssd.training.build import build_scheduler
from ssd.training.config import parse_train_config


def test_every_model_is_described_by_the_flags_of_training(capsys) -> None:
    config = ComparisonConfig(settings={"res": 8, "block_out_channels": [32, 32, 32]})
    kinds = []
    for name in RECIPES:
        training = parse_train_config(train_flags(config, name))
        assert (training.size, training.block_out_channels, training.total_steps) == ((8, 8), [32, 32, 32], 700)
        kinds.append((type(build_scheduler(training)).__name__, training.levels, training.prediction_type))
    assert len(set(kinds)) == 6  # the full U-Net has the process of SSD with 3 levels
    main(["--dry_run", "--only", "[blurring, ssd_3l]"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "--process blurring" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "[ssd_9l]"], "--only has no model ssd_9l: use some of ddpm_eps, ddpm_x0"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["figures", "--res", "20"], "--res must be 16, 32 or 64, got 20"),
        (["tables", "--base", "40"], "--base must be a multiple of 32, got 40"),
        (["tables", "--steps", "10"], "--steps must be a multiple of 40 in 40..1000, got 10"),
        (["tables", "--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["--settings", "{res: 18}"], "divisible by 4: got 18 x 18"),
        (["--data", "folder:/no/such", "--only", "[ssd_9l]"], "--only has no model"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys, tmp_path) -> None:
    if arguments[0].startswith("--"):
        arguments = [*arguments, "--out", str(tmp_path / "x")]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 2
    assert message in said
    assert not (tmp_path / "x").exists()


def test_a_table_leaves_out_what_nobody_measured() -> None:
    rows = [
        {"title": "a", "frechet_pixels": 1.234, "frechet_standard_error": 0.1, "gflops_per_step": 0.25},
        {"title": "b", "gflops_per_step": 0.5},
    ]
    assert table(rows).splitlines() == [
        "| | Frechet, pixels | GFLOPs per step |",
        "|---|---|---|",
        "| a | 1.23 ± 0.10 | 0.25 |",
        "| b |  | 0.5 |",
    ]
    with pytest.raises(UsageError, match="--only has no model"):
        ComparisonConfig(only=["x"])


def test_a_training_that_was_stopped_is_not_measured(tmp_path, monkeypatch) -> None:
    """It ends with exit code 0, as a run that was told to stop should."""
    config = ComparisonConfig(out=str(tmp_path), only=["ssd_3l"])
    monkeypatch.setattr(comparison, "run_command", lambda *arguments: None)
    steps = iter([0, 34, 34, 700])
    monkeypatch.setattr(comparison, "trained_steps", lambda *arguments: next(steps))
    with pytest.raises(RunFailed, match="ssd_3l was stopped after 34 of 700 steps: run the same command to continue"):
        comparison.train(config, "ssd_3l")
    comparison.train(config, "ssd_3l")


def test_figures(tmp_path, capsys) -> None:
    main(["figures", "--out", str(tmp_path), "--res", "16"])
    names = {"paper_information", "paper_schedules", "paper_cost", "paper_isotropic"}
    assert {path.stem for path in tmp_path.iterdir()} == names
    for path in tmp_path.iterdir():
        assert Image.open(path).width > 1000


@pytest.mark.parametrize("command", [[], ["figures"]])
def test_a_missing_matplotlib_is_told_before_the_work(command: list[str], tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "Pictures need matplotlib, which is not installed: pip install matplotlib." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_tables(capsys) -> None:
    main(["tables", "--steps", "40", "--batch", "1", "--repeats", "1"])
    said = capsys.readouterr().out
    for part in ("| `celeba64_4l` | 38.99 | 38.48 | 38.48 |", "| 4 | 250 |", "| 1 | 25, DDIM |", "| 4 | "):
        assert part in said
    assert "levels | corrective noise, seconds per image" in said


@pytest.mark.slow
def test_the_comparison_runs_and_continues(tmp_path, capsys) -> None:
    flags = ["--scale", "tiny", "--out", str(tmp_path), "--only", "[blurring, ssd_3l, corrective_3l]"]
    main(flags)
    first = json.loads((tmp_path / "comparison.json").read_text())["rows"]
    assert [row["name"] for row in first] == ["blurring", "ssd_3l", "corrective_3l"]
    assert all(0 < row["classifier"] < 1 and row["seconds_per_image"] > 0 for row in first)
    assert "| SSD, 3 levels |" in (tmp_path / "comparison.md").read_text()
    for name in ("comparison.png", "samples.png"):
        assert Image.open(tmp_path / name).width > 1000
    main(flags)  # everything is there: nothing is trained or measured again
    assert json.loads((tmp_path / "comparison.json").read_text())["rows"] == first
