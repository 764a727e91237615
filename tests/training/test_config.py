"""Settings of a run, and the network and process that they describe."""

import pytest
import torch

from ssd.commands.errors import UsageError
from ssd.training.config import CHANNEL_MULTIPLIERS, TrainConfig, build_scheduler, build_unet, parse_train_config


@pytest.mark.parametrize("res", CHANNEL_MULTIPLIERS)
def test_default_networks_build(res: int) -> None:
    config = TrainConfig(res=res, data="digits", out="x", levels=3)
    with torch.device("meta"):
        unet = build_unet(config)
    assert unet.config.time_embed_channels == 128
    assert build_scheduler(config).resolutions == unet.stage_sizes[:3]
    assert config.total_steps == (1_000_000 if res <= 64 else 300_000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "--batch_size must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "--learning_rate must be positive"),
        ({"ema_decays": [1.0]}, r"--ema_decays must be in \[0, 1\)"),
        ({"ema_decays": []}, "--ema_decays must be at least one number"),
        ({"transition_probability": 1.5}, r"--transition_probability must be in \(0, 1\)"),
        ({"out": ""}, "--out must be a folder"),
        ({"seed": 2**63}, r"--seed must be below 2\^63"),
    ],
)
def test_wrong_settings_are_explained(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**({"res": 16, "data": "digits", "out": "x"} | settings))


SHORT = ["--res", "16", "--data", "digits", "--out", "x"]


def test_switches_need_no_value() -> None:
    for flags in (["--resume", "--dry_run"], ["--resume", "true", "--dry-run=true"]):
        config = parse_train_config([*SHORT, *flags])
        assert (config.resume, config.dry_run, config.overwrite) == (True, True, False)
    assert not parse_train_config([*SHORT, "--resume", "--resume", "false"]).resume


def test_earlier_names_are_understood_with_a_note(capsys) -> None:
    config = parse_train_config([*SHORT, "--accumulate", "3", "--keep=2", "--tracker", "none"])
    assert (config.gradient_accumulation_steps, config.checkpoints_total_limit, config.report_to) == (3, 2, "none")
    assert "note: --accumulate is now called --gradient_accumulation_steps." in capsys.readouterr().err


def test_an_earlier_name_in_a_file_is_explained(tmp_path, capsys) -> None:
    (tmp_path / "a.yaml").write_text("res: 16\ndata: digits\nout: x\nkeep: 2\n")
    with pytest.raises(SystemExit):
        parse_train_config(["--config", str(tmp_path / "a.yaml")])
    assert "It is now called 'checkpoints_total_limit'." in capsys.readouterr().err
