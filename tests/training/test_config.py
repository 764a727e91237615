"""Settings of a run, and the network and process that they describe."""

import pytest
import torch

from ssd.commands.errors import UsageError
from ssd.training.build import CHANNEL_MULTIPLIERS, build_scheduler, build_unet
from ssd.training.config import TrainConfig, parse_train_config
from ssd.training.run_config import images_per_batch


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
        ({"global_batch_size": 0}, "--global_batch_size must be at least 1, got 0"),
        ({"res": [16, 8, 4]}, r"--res must be one side or \[height, width\], at least 1, got \[16, 8, 4\]"),
        ({"channels": 4}, "--channels must be 3 for colour or 1 for grey, got 4"),
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
    config = parse_train_config([*SHORT, "--keep=2", "--tracker", "none"])
    assert (config.checkpoints_total_limit, config.report_to) == (2, "none")
    assert "note: --keep is now called --checkpoints_total_limit." in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--batch_size", "--accumulate", "--gradient_accumulation_steps"])
def test_flags_that_are_gone_say_what_to_use(flag: str, tmp_path, capsys) -> None:
    (tmp_path / "a.yaml").write_text(f"res: 16\ndata: digits\nout: x\n{flag[2:]}: 2\n")
    for arguments in ([*SHORT, flag, "2"], ["--config", str(tmp_path / "a.yaml")]):
        with pytest.raises(SystemExit) as stopped:
            parse_train_config(arguments)
        said = capsys.readouterr().err
        assert stopped.value.code == 2
        assert "It is gone: --global_batch_size counts the images of a step on all processes" in said
        assert len(said.splitlines()) == 1


def test_the_recipe_of_the_paper_is_the_default() -> None:
    """Tables 5 and 6: batch 128 and 1e-4, from 256 pixels on 64 and 5e-5."""
    for res, batch, learning_rate in ((64, 128, 1e-4), (128, 128, 1e-4), (256, 64, 5e-5)):
        config = TrainConfig(res=res, data="digits", out="x")
        assert (config.global_batch_size, config.learning_rate) == (batch, learning_rate)
        assert (config.levels, config.prediction_type, config.loss, config.max_snr) == (3, "sample", "min_snr", 5.0)
    blurring = TrainConfig(res=64, data="digits", out="x", process="blurring")
    assert (blurring.levels, blurring.prediction_type, blurring.blur_sigma_max) == (1, "epsilon", 20.0)


def test_processes_share_the_images_of_a_step() -> None:
    config = TrainConfig(res=64, data="digits", out="x", global_batch_size=24, routes_per_step=2)
    assert [images_per_batch(config, number) for number in (1, 2, 3, 4)] == [12, 6, 4, 3]
    with pytest.raises(UsageError, match=r"24 cannot be shared equally by 5 processes and 2 routes.*multiple of 10"):
        images_per_batch(config, 5)


COMBINATIONS = [
    ({"process": "blurring", "levels": 3}, "--process blurring has one resolution, got 3 levels: use --levels 1"),
    ({"process": "blurring", "variance_type": "fixed_large"}, "--variance_type fixed_large is for"),
    ({"process": "blurring", "prediction_type": "v_prediction"}, "predicts 'epsilon', as published, or 'sample'"),
    ({"process": "corrective_noise", "resolutions": [16, 12]}, "halves images from level to level: use --levels"),
    ({"process": "corrective_noise", "blur_sigma_max": 1.0}, "has no blur"),
    ({"levels": 2, "variance_type": "fixed_large"}, "'fixed_large' is for one level.*got 2 levels.*use 'fixed_small'"),
    ({"resolutions": [16, 8], "levels": 3}, "--levels 3 does not agree with 2 explicit resolutions"),
    ({"resolutions": [16, 8], "min_size": 4}, "--resolutions and --min_size both"),
    ({"resolutions": [8, 16]}, r"must begin with the full resolution \(16, 16\), got \(8, 8\)"),
    ({"resolutions": [16, 8, 12]}, r"must shrink.*\(12, 12\) follows \(8, 8\): list them from the full resolution"),
    ({"resolutions": [16, 0]}, "must be positive sides"),
    ({"min_size": 17}, "--min_size must be at most the image's short side, 16, got 17"),
    ({"levels": 4}, r"--levels 4 is too many: at 16 x 16 pixels.*largest number of levels is 2.*--min_size"),
    ({"levels": 2, "prediction_type": "epsilon", "blur_sigma_max": 1.0}, "With blur the network predicts the sample"),
]


@pytest.mark.parametrize(("settings", "message"), COMBINATIONS, ids=[str(settings) for settings, _ in COMBINATIONS])
def test_settings_that_do_not_go_together_are_one_line(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build_scheduler(TrainConfig(res=16, data="digits", out="x", block_out_channels=[32, 32], **settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"min_size": 2}, [(side, side) for side in range(16, 1, -1)]),
        ({"min_size": 5, "size_step": 4}, [(16, 16), (12, 12), (8, 8)]),
        ({"resolutions": [16, 11, [7, 6]]}, [(16, 16), (11, 11), (7, 6)]),
        ({"res": [24, 16], "min_size": 12, "size_step": 2}, [(24, 16), (21, 14), (18, 12)]),
        ({"res": [24, 16], "levels": 2}, [(24, 16), (12, 8)]),
        ({"process": "corrective_noise", "levels": 2}, [(16, 16), (8, 8)]),
    ],
)
def test_resolutions_by_command(settings: dict, sizes: list) -> None:
    config = TrainConfig(**({"res": 16, "data": "digits", "out": "x", "block_out_channels": [32, 32]} | settings))
    assert build_scheduler(config).resolutions == sizes
    assert config.levels == len(sizes)


def test_an_earlier_name_in_a_file_is_explained(tmp_path, capsys) -> None:
    (tmp_path / "a.yaml").write_text("res: 16\ndata: digits\nout: x\nkeep: 2\n")
    with pytest.raises(SystemExit):
        parse_train_config(["--config", str(tmp_path / "a.yaml")])
    assert "It is now called 'checkpoints_total_limit'." in capsys.readouterr().err
