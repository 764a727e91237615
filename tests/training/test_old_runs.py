"""A run of version 0.1, made before the rooms were built, continues."""

import json
import shutil

import torch
import yaml
from safetensors.torch import load_file

from ssd.training.log import read_log

from ..conftest import ROOT, run_script
from .runs import TRAIN

OLD = ROOT / "tests" / "golden" / "run_0_1"


def test_a_run_of_version_0_1_resumes(tmp_path) -> None:
    out = tmp_path / "old"
    shutil.copytree(OLD, out)
    settings = yaml.safe_load((out / "train_config.yaml").read_text())
    assert {"accumulate", "keep", "tracker", "learning_rate_schedule", "warmup_steps"} <= settings.keys()
    flags = ["--out", out, "--max_steps", "8", "--checkpoints_total_limit", "2", "--report_to", "none", "--resume"]
    for name in (
        *("res", "levels", "data", "block_out_channels", "norm_num_groups", "num_attention_heads", "layers_per_block"),
        *("attention_resolutions", "ema_decays", "learning_rate", "transition_probability"),
    ):
        flags += [f"--{name}", str(settings[name])]
    flags += [
        "--class_conditional",
        "--global_batch_size",
        "4",
        "--num_workers",
        "0",
        "--sample_every",
        "0",
        "--log_every",
        "1",
    ]
    done = run_script(TRAIN, *flags)
    assert done.code == 0, done.err
    assert "Finished after 8 steps" in done.out

    old, new = (out / "checkpoints" / f"step_0000000{step}" for step in (6, 8))
    before, after = load_file(old / "unet.safetensors"), load_file(new / "unet.safetensors")
    assert before.keys() == after.keys()
    moved = max(float((after[key] - before[key]).abs().max()) for key in before)
    assert 0 < moved < 2 * 2 * settings["learning_rate"]  # two steps of Adam, from the moments that were saved
    steps = load_file(new / "optimizer.safetensors")
    assert float(steps["conv_in.weight.step"]) == 8
    assert json.loads((new / "state.json").read_text())["ema_updates"] == 8
    assert [row["step"] for row in read_log(out / "log.csv")] == [str(step) for step in range(1, 9)]
    assert all(torch.isfinite(value).all() for value in after.values())
