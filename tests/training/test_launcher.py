"""Settings of the launcher count where no flag says otherwise, and the run says which came from where."""

import pytest
import yaml

from ssd.commands.errors import UsageError
from ssd.training.config import TrainConfig
from ssd.training.launcher import with_launcher_settings
from ssd.training.log import read_log

from ..conftest import TINY, run_script
from .runs import SCRIPTS, TRAIN

ALL = {
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "3",
    "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
}


def config_of(**settings) -> TrainConfig:
    return TrainConfig(res=16, data="digits", out="x", global_batch_size=16, **settings)


def test_what_the_launcher_says_counts() -> None:
    config, notes = with_launcher_settings(config_of(), ALL)
    assert (config.mixed_precision, config.micro_batch_size, config.compile) == ("bf16", 6, True)
    assert notes == [
        f"{said}: from the launcher (accelerate config), since no flag says otherwise."
        for said in ("mixed_precision bf16", "micro_batch_size 6", "compile True")
    ]
    config, _ = with_launcher_settings(config_of(), ALL | {"WORLD_SIZE": "2"})
    assert config.micro_batch_size == 3


def test_flags_count_more() -> None:
    config, notes = with_launcher_settings(config_of(mixed_precision="no", micro_batch_size=2, compile=True), ALL)
    assert (config.mixed_precision, config.micro_batch_size, config.compile) == ("no", 2, True)
    assert notes == [
        "mixed_precision no: from this run's flags; the launcher (accelerate config) says bf16.",
        "micro_batch_size 2: from this run's flags; the launcher (accelerate config) says 6.",
    ]


@pytest.mark.parametrize("environment", [{}, {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO"}])
def test_the_launchers_defaults_say_nothing(environment) -> None:
    assert with_launcher_settings(config_of(), environment) == (config_of(), [])


def test_what_training_does_not_have() -> None:
    with pytest.raises(UsageError, match="mixed_precision must be no, bf16 or fp16, got fp8"):
        with_launcher_settings(config_of(), {"ACCELERATE_MIXED_PRECISION": "fp8"})
    with pytest.raises(UsageError, match=r"dynamo_backend must be no or inductor, .* got eager"):
        with_launcher_settings(config_of(), {"ACCELERATE_DYNAMO_BACKEND": "EAGER"})


def test_accumulation_changes_no_gradient(tmp_path, monkeypatch) -> None:
    """accelerate alone would divide every loss by the number of steps."""
    flags = [*TINY, "--data", "digits", "--max_steps", "2"]
    assert run_script(TRAIN, *flags, "--out", tmp_path / "plain").code == 0
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    done = run_script(TRAIN, *flags, "--out", tmp_path / "parts")
    assert done.code == 0, done.err
    assert "note: micro_batch_size 2: from the launcher" in done.out
    assert yaml.safe_load((tmp_path / "parts" / "train_config.yaml").read_text())["micro_batch_size"] == 2
    norms = [
        [float(row["gradient_norm"]) for row in read_log(tmp_path / run / "log.csv")] for run in ("plain", "parts")
    ]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.part)
def test_a_missing_or_unknown_tracker_is_one_line(script, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ssd.training.engine.get_available_trackers", lambda: ["tensorboard"])
    for name, part in (
        ("wandb", "needs its package: pip install wandb"),
        ("weights", "--report_to weights is unknown"),
    ):
        done = run_script(script.path, *script.run, "--report_to", name, "--out", tmp_path / "x")
        done.assert_one_line_error(part, "one of tensorboard, none")
    assert not (tmp_path / "x").exists()
