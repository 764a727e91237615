"""What training VDVAE has of its own: its settings, skipped steps, held-out images, and what it writes."""

import json
import math

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ssd import VDVAEPipeline
from ssd.commands.errors import UsageError
from ssd.data import open_dataset
from ssd.data.held_out import hold_out
from ssd.publishing.saving import load_vdvae_pipeline
from ssd.training.guard import StepGuard
from ssd.training.images import Position
from ssd.training.log import read_log
from ssd.training.vdvae.batches import VDVAEBatches
from ssd.training.vdvae.config import VDVAETrainConfig, parse_vdvae_config
from ssd.training.vdvae.setup import build_vdvae
from vdvae import VDVAEModel

from ..conftest import TINY, run_script
from .runs import VDVAE, VDVAE_TINY, final_tensors, largest_difference

FLAGS = [VDVAE.path, *VDVAE_TINY]
SHORT = {"res": 8, "data": "digits", "out": "x", "channels": 1, "levels": 17, "num_mixtures": 2, "width": 8}
SHORT |= {"latent_channels": 2, "enc_blocks": "8x1,8d2,4x1r2", "dec_blocks": "4x1r2,8m4,8x1"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Six steps with everything that a run writes."""
    out = tmp_path_factory.mktemp("run") / "x"
    more = ["--num_valid", "9", "--valid_every", "4", "--sample_every", "6", "--log_every", "3"]
    done = run_script(*FLAGS, *more, "--out", out, "--max_steps", "6")
    assert done.code == 0, done.err
    return out


def test_what_a_run_writes(run) -> None:
    rows = {row["step"]: row for row in read_log(run / "log.csv")}
    assert list(rows) == ["3", "4", "6"]
    assert [bool(row["valid_loss"]) for row in rows.values()] == [False, True, True]
    for row in rows.values():
        assert float(row["loss"]) == pytest.approx(float(row["nll"]) + float(row["rate"]), rel=1e-4)
    assert {path.name for path in (run / "samples").iterdir()} == {
        "step_00000006_temperature_1.png",
        "step_00000006_temperature_0.8.png",
    }
    assert Image.open(run / "samples/step_00000006_temperature_1.png").mode == "L"
    card = (run / "README.md").read_text()
    assert "VDVAEPipeline.from_pretrained" in card
    assert "WS-VDVAE, 8 x 8 pixels" in card
    assert "6 of 6, " in card
    state = json.loads((run / "checkpoints/step_00000006/state.json").read_text())
    assert state["data"]["count"] == 1788
    assert set(state["files"]) == {"vdvae.safetensors", "ema_0.safetensors", "optimizer.safetensors"}


def test_the_pipeline_of_a_run_is_its_averaged_network(run) -> None:
    average = load_file(run / "checkpoints/step_00000006/ema_0.safetensors")
    for pipeline in (VDVAEPipeline.from_pretrained(run), load_vdvae_pipeline(str(run), "cpu")):
        weights = pipeline.vdvae.state_dict()
        assert weights.keys() == average.keys()
        assert all(torch.equal(weights[name], average[name]) for name in weights)


def test_the_published_recipe_is_the_default() -> None:
    config = VDVAETrainConfig(res=32, data="digits", out="x")
    assert (config.lr_warmup_steps, config.weight_decay, config.max_grad_norm) == (100, 0.01, 200.0)
    assert (config.skip_threshold, config.learning_rate, config.global_batch_size) == (400.0, 1.5e-4, 32)
    assert (config.ema_decays, config.random_flip, config.mixed_precision) == ([0.999], False, "no")
    with torch.device("meta"):
        assert build_vdvae(config).num_parameters() == 39_145_700  # of the published network for CIFAR-10


MISTAKES = [
    (["--res", "[8,16]"], ["--res must be one side: images of VDVAE are square"]),
    (["--skip_threshold", "0"], ["--skip_threshold must be positive, or -1 for never, got 0.0"]),
    (["--mixed_precision", "fp16"], ["--mixed_precision fp16 cannot skip steps"]),
    (["--compile"], ["--compile is not for VDVAE"]),
    (["--dec_blocks", "4x1,8x1"], ["The network cannot be built.", "8m4"]),
    (["--enc_blocks", "8y"], ["--enc_blocks: '8y' in '8y' is not a block", "RESxN"]),
    (["--likelihood", "bernoulli"], ["The network cannot be built. likelihood bernoulli needs levels=2, got 17."]),
    (["--num_valid", "1797"], ["Of 1797 images between 1 and 1796 can be held out, got 1797"]),
    (["--levels", "1"], ["--levels must be at least 2, got 1"]),
    (["--block_out_channels", "[8]"], ["block_out_channels"]),
    (["--width", "wide"], ["width", "int", "wide"]),
]


@pytest.mark.parametrize(("flags", "parts"), MISTAKES, ids=[" ".join(flags) for flags, _ in MISTAKES])
def test_mistakes_are_one_line(flags, parts, tmp_path) -> None:
    run_script(*FLAGS, "--out", tmp_path / "x", *flags).assert_one_line_error(*parts)
    assert not (tmp_path / "x").exists()


def test_a_dry_run_describes_the_network_and_writes_nothing(tmp_path) -> None:
    done = run_script(*FLAGS, "--out", tmp_path / "x", "--dry_run")
    assert done.code == 0, done.err
    assert "4 cells applied" in done.out
    assert "VDVAEPipeline.from_pretrained" in done.out
    assert not (tmp_path / "x").exists()


def test_a_run_of_another_model_is_not_continued(run, tmp_path) -> None:
    out = tmp_path / "x"
    assert run_script("train/train_ssd.py", *TINY, "--data", "digits", "--out", out, "--max_steps", "1").code == 0
    run_script(*FLAGS, "--out", out).assert_one_line_error("holds another run")
    more = ["--res", "16", "--channels", "3", "--levels", "256", "--global_batch_size", "4", "--max_steps", "2"]
    blocks = ["--enc_blocks", "16x1,16d2,8x1", "--dec_blocks", "8x1,16m8", "--lr_warmup_steps", "0"]
    same = ["--weight_decay", "0", "--ema_decays", "[0.9999]", "--random_flip", "--mixed_precision", "auto"]
    again = run_script(*FLAGS, *more, *blocks, *same, "--out", out, "--resume")
    again.assert_one_line_error("--levels 256: it was started with 2")


def test_settings_that_define_the_run_may_not_change(run) -> None:
    again = [*FLAGS, "--num_valid", "9", "--out", run, "--resume", "--max_steps", "7"]
    run_script(*again, "--width", "16").assert_one_line_error("--width 16: it was started with 8")
    run_script(*again, "--num_valid", "8").assert_one_line_error("--num_valid 8: it was started with 9")


def test_init_from_starts_from_the_weights_of_a_run(run, tmp_path) -> None:
    flags = [*FLAGS, "--out", tmp_path / "x", "--init_from", run, "--max_steps", "1"]
    assert run_script(*flags, "--lr_warmup_steps", "1").code == 0  # the first step has the learning rate 0
    weights, before = final_tensors(tmp_path / "x", 1), final_tensors(run, 6)
    name = f"vdvae.safetensors/{VDVAE.last_layer}"
    assert torch.equal(weights[name], before[name.replace("vdvae.", "ema_0.")])
    wider = [*flags, "--overwrite", "--width", "16"]
    run_script(*wider).assert_one_line_error(f"--init_from {run} has another architecture")


def test_steps_with_large_gradients_are_skipped(tmp_path) -> None:
    """From a threshold on that no gradient is below, weights and averages stay as they were, and the run ends."""
    flags = [*FLAGS, "--out", tmp_path / "x", "--skip_threshold", "1e-9", "--max_bad_steps", "3", "--max_steps", "9"]
    done = run_script(*flags)
    assert done.code == 1
    assert "3 steps in a row were skipped" in done.err
    assert "--skip_threshold 1e-09" in done.err
    assert [row["bad_steps"] for row in read_log(tmp_path / "x/log.csv")] == ["1", "2", "3"]


@pytest.mark.parametrize(("norm", "good"), [(399.0, 1.0), (400.0, 0.0), (math.inf, 0.0), (math.nan, 0.0)])
def test_the_guard_skips_from_the_threshold_on(norm: float, good: float) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], 0.1, fused=True)
    weight.grad = torch.ones(2)
    guard = StepGuard(optimizer, False, torch.device("cpu"), threshold=400.0)
    assert float(guard.judge(torch.tensor(norm))) == good
    optimizer.step()
    assert bool((weight == 1).all()) == (good == 0)


def test_a_loss_that_is_not_finite_skips_its_step(tmp_path, monkeypatch) -> None:
    """Though the gradient is: the published code looks at both."""
    plain, calls = VDVAEModel.log_prob, [0]

    def log_prob(self, out, images):
        calls[0] += 1
        return plain(self, out, images) + (math.nan if calls[0] == 3 else 0.0)  # its gradient is as it was

    monkeypatch.setattr(VDVAEModel, "log_prob", log_prob)
    done = run_script(*FLAGS, "--out", tmp_path / "x", "--max_steps", "4")
    assert done.code == 0, done.err
    assert [row["bad_steps"] for row in read_log(tmp_path / "x/log.csv")] == ["0", "0", "1", "1"]


def test_parts_of_a_batch_add_up_to_its_gradient(tmp_path) -> None:
    for name, most in (("whole", "4"), ("thirds", "3"), ("single", "1")):
        flags = ["--micro_batch_size", most, "--max_steps", "3", "--out", tmp_path / name]
        assert run_script(*FLAGS, *flags).code == 0
    for name in ("thirds", "single"):
        assert largest_difference(final_tensors(tmp_path / name, 3), final_tensors(tmp_path / "whole", 3)) < 1e-6


def test_gradient_checkpointing_changes_nothing(tmp_path) -> None:
    for name, more in (("plain", []), ("checkpointed", ["--gradient_checkpointing"])):
        assert run_script(*FLAGS, *more, "--max_steps", "3", "--out", tmp_path / name).code == 0
    assert largest_difference(final_tensors(tmp_path / "plain", 3), final_tensors(tmp_path / "checkpointed", 3)) < 1e-6


def test_batches_are_whole_grey_levels_and_the_same_on_any_number_of_processes() -> None:
    config = VDVAETrainConfig(**SHORT, global_batch_size=4, num_workers=0, random_flip=True)
    shapes = build_vdvae(config).latent_shapes
    dataset = open_dataset("digits", 8, channels=1)
    whole = next(VDVAEBatches(config, dataset, shapes))
    parts = [next(VDVAEBatches(config, dataset, shapes, rank=rank, world_size=2)) for rank in range(2)]
    assert whole.images.dtype == torch.int64
    assert (int(whole.images.min()), int(whole.images.max())) == (0, 16)
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    for index, noise in enumerate(whole.noise):
        assert torch.equal(torch.cat([part.noise[index] for part in parts]), noise)
    second = next(VDVAEBatches(config, dataset, shapes, Position(1, 4)))
    batches = VDVAEBatches(config, dataset, shapes)
    assert torch.equal([next(batches), next(batches)][1].noise[0], second.noise[0])
    halves = whole.split(3)
    assert [len(half.images) for half in halves] == [2, 2]
    assert torch.equal(halves[1].noise[1], whole.noise[1][2:])


def test_held_out_images_are_the_same_for_every_seed_and_not_learned_from() -> None:
    dataset = open_dataset("digits", 8)
    train, valid = hold_out(dataset, 297)
    assert (len(train), len(valid)) == (1500, 297)
    assert sorted([*train.indices, *valid.indices]) == list(range(1797))
    assert torch.equal(train[3]["image"], dataset[train.indices[3]]["image"])
    own = {"count": 1500, "part": "all but 297 held-out images"}
    assert train.provenance == dataset.provenance | own
    with pytest.raises(UsageError, match="between 1 and 1796"):
        hold_out(dataset, 0)


def test_settings_by_file_and_flags(tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("res: 8\ndata: digits\nout: x\ncustom_widths: {4: 16}\nfourier_features: [7, 8]\n")
    config = parse_vdvae_config(["--config", str(tmp_path / "a.yaml"), "--enc_blocks", "8x1,8d2,4x1", "--width", "8"])
    assert config.model_arguments["custom_widths"] == {4: 16}
    assert config.model_arguments["fourier_features"] == (7, 8)
    assert config.has_routes  # the decoder's default has other resolutions


def test_widths_by_resolution_are_the_same_after_a_resume(tmp_path) -> None:
    """Also where the settings are those of the checkpoint, a JSON file, whose keys are texts."""
    flags = [*FLAGS, "--out", tmp_path / "x", "--custom_widths", '{"4": 12}']
    assert run_script(*flags, "--max_steps", "1").code == 0
    (tmp_path / "x" / "train_config.yaml").write_text("[")
    done = run_script(*flags, "--max_steps", "2", "--resume")
    assert done.code == 0, done.err
