"""Options of training: each does what it says, and the run resumes with it."""

import functools
import json

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from PIL import Image
from safetensors.torch import load_file

from flexi_unet import FlexiUNet2DModel
from ssd.training.log import read_log

from ..conftest import TINY, run_script
from .runs import TRAIN, final_tensors, largest_difference

FLAGS = [TRAIN, *TINY, "--data", "digits"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Four steps without options."""
    return train(tmp_path_factory.mktemp("plain") / "x")


def train(out, *flags: str):
    """Four steps, resumed after two."""
    for more in (["--max_steps", "2"], ["--max_steps", "4", "--resume"]):
        done = run_script(*FLAGS, "--out", out, *flags, *more)
        assert done.code == 0, done.err
    return out


def progress(out) -> dict:
    return json.loads((out / "checkpoints/step_00000004/state.json").read_text())["progress"]


def test_coarse_batches_can_be_larger(plain, tmp_path) -> None:
    out = train(tmp_path / "x", "--level_batch_scale", "3")
    coarse = sum(bool(row["loss_8x8"]) for row in read_log(out / "log.csv"))
    assert progress(plain)["images"] == 16
    assert progress(out)["images"] == 16 + coarse * 8 > 16


def test_several_averages_on_the_cpu(plain, tmp_path) -> None:
    tensors = final_tensors(train(tmp_path / "x", "--ema_decays", "[0.1,0.9999]", "--ema_on_cpu"), 4)
    unet, fast, slow = (tensors[f"{name}.safetensors/conv_out.weight"] for name in ("unet", "ema_0", "ema_1"))
    assert 0 < (unet - fast).norm() < (unet - slow).norm()
    assert torch.equal(slow, final_tensors(plain, 4)["ema_0.safetensors/conv_out.weight"])


def test_the_learning_rate_warms_up_and_falls(tmp_path) -> None:
    flags = [*FLAGS, "--out", tmp_path / "x", "--lr_scheduler", "cosine", "--lr_warmup_steps", "2", "--max_steps", "6"]
    assert run_script(*flags).code == 0
    rates = [float(row["learning_rate"]) for row in read_log(tmp_path / "x/log.csv")]
    assert rates[:3] == pytest.approx([0, 5e-5, 1e-4])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 5e-5
    assert run_script(*FLAGS, "--out", tmp_path / "y", "--lr_warmup_steps", "2", "--max_steps", "4").code == 0
    rates = [float(row["learning_rate"]) for row in read_log(tmp_path / "y/log.csv")]
    assert rates == pytest.approx([0, 5e-5, 1e-4, 1e-4])


def test_gradients_are_clipped_to_the_norm(plain, tmp_path) -> None:
    """Adam forgets the scale of gradients, but its moments show it."""
    clipped, free = (final_tensors(out, 4) for out in (train(tmp_path / "x", "--max_grad_norm", "1e-3"), plain))
    norms = [
        sum(float(value.norm()) ** 2 for key, value in tensors.items() if key.endswith(".exp_avg")) ** 0.5
        for tensors in (clipped, free)
    ]
    assert norms[0] < 1e-3 < norms[1]


def test_checkpointing_recomputes_and_changes_nothing(plain, tmp_path, monkeypatch) -> None:
    calls, original = [], torch.utils.checkpoint.checkpoint

    @functools.wraps(original)
    def counted(*arguments, **options):
        calls.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", counted)
    out = train(tmp_path / "x", "--gradient_checkpointing")
    assert calls
    assert largest_difference(final_tensors(out, 4), final_tensors(plain, 4)) < 1e-5


def test_channels_last(plain, tmp_path, monkeypatch) -> None:
    formats, original = [], FlexiUNet2DModel.to

    def watched(self, *arguments, **options):
        formats.append(options.get("memory_format"))
        return original(self, *arguments, **options)

    monkeypatch.setattr(FlexiUNet2DModel, "to", watched)
    losses = [float(row["loss"]) for row in read_log(train(tmp_path / "x", "--channels_last") / "log.csv")]
    assert torch.channels_last in formats
    assert losses == pytest.approx([float(row["loss"]) for row in read_log(plain / "log.csv")], rel=1e-2)


def test_bf16_rounds_the_network_and_keeps_float32_weights(plain, tmp_path) -> None:
    out = train(tmp_path / "x", "--mixed_precision", "bf16")
    assert {value.dtype for value in final_tensors(out, 4).values()} == {torch.float32}
    losses, exact = ([float(row["loss"]) for row in read_log(run / "log.csv")] for run in (out, plain))
    assert losses != exact
    assert losses == pytest.approx(exact, rel=0.05)


def test_class_labels(tmp_path) -> None:
    out = train(tmp_path / "x", "--class_conditional", "--sample_every", "4", "--sample_steps", "2")
    config = json.loads((out / "unet/config.json").read_text())
    assert config["num_class_embeds"] == 11
    assert config["id2label"] == {str(digit): str(digit) for digit in range(10)}
    moments = load_file(out / "checkpoints/step_00000004/optimizer.safetensors")["class_embedding.weight.exp_avg"]
    assert 1 < int((moments.abs().amax(dim=1) > 0).sum()) <= 11
    assert Image.open(out / "samples/step_00000004.png").size[0] > 8 * 64


def test_labels_with_gaps_are_compacted_and_named_in_the_model(tmp_path) -> None:
    """Labels 1, 3 and 6: three classes, and no image of any other is ever drawn."""
    labels = np.array([1, 3, 6, 6, 1, 3, 3, 6])
    np.savez(tmp_path / "a.npz", images=np.full((8, 16, 16, 3), 9, dtype=np.uint8), labels=labels)
    flags = [TRAIN, *TINY, "--data", f"npz:{tmp_path / 'a.npz'}", "--out", tmp_path / "x", "--max_steps", "1"]
    done = run_script(*flags, "--class_conditional", "--num_classes", "7")
    assert done.code == 0, done.err
    assert "have no image; 7 classes were asked for" in done.out
    config = json.loads((tmp_path / "x/unet/config.json").read_text())
    assert (config["num_class_embeds"], config["no_class_label"]) == (4, 3)
    assert config["id2label"] == {"0": "1", "1": "3", "2": "6"}


def test_workers_change_nothing(plain, tmp_path) -> None:
    out = train(tmp_path / "x", "--num_workers", "1")
    assert largest_difference(final_tensors(out, 4), final_tensors(plain, 4)) == 0


def test_dropout_depends_on_the_step_alone(plain, tmp_path) -> None:
    out = train(tmp_path / "x", "--dropout", "0.5")
    assert run_script(*FLAGS, "--out", tmp_path / "whole", "--dropout", "0.5", "--max_steps", "4").code == 0
    assert largest_difference(final_tensors(out, 4), final_tensors(tmp_path / "whole", 4)) == 0
    assert largest_difference(final_tensors(out, 4), final_tensors(plain, 4)) > 0


def test_without_a_tracker_only_the_csv_file_is_written(plain, tmp_path) -> None:
    out = train(tmp_path / "x", "--report_to", "none")
    assert list((plain / "tensorboard").rglob("events*"))
    assert not (out / "tensorboard").exists()
    assert len(read_log(out / "log.csv")) == 4


def test_training_can_start_from_other_weights(plain, tmp_path) -> None:
    flags = [*FLAGS, "--max_steps", "2"]
    assert run_script(*flags, "--out", tmp_path / "y", "--init_from", plain, "--learning_rate", "1e-20").code == 0
    first, second = (load_file(r / "unet/diffusion_pytorch_model.safetensors") for r in (plain, tmp_path / "y"))
    assert largest_difference(first, second) < 1e-6
    wrong = [*flags, "--out", tmp_path / "z", "--layers_per_block", "2", "--init_from", plain]
    run_script(*wrong).assert_one_line_error("another architecture", "tensors differ")
    run_script(*flags, "--out", tmp_path / "z", "--init_from", tmp_path).assert_one_line_error("is not a pipeline")
    assert not (tmp_path / "z").exists()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_was_done_to_pictures_is_said_once(tmp_path, workers: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):  # black drawings, half of them on a transparent ground
        picture = Image.new("RGBA", (20, 20), (0, 0, 0, 0 if i % 2 else 255))
        picture.save(folder / f"{i}.png")
    flags = [TRAIN, *TINY, "--data", f"folder:{folder}", "--max_steps", "3", "--num_workers", workers]
    done = run_script(*flags, "--background", "#00FF00", "--out", tmp_path / "x")
    assert done.code == 0, done.err
    assert [line for line in done.out.splitlines() if "composited" in line] == [
        "note: 2 of 4 pictures read were composited over #00FF00."
    ]
    run_script(*flags, "--background", "greenish", "--out", tmp_path / "y").assert_one_line_error("greenish")


@pytest.mark.slow
def test_a_compiled_network_trains_alike(tmp_path) -> None:
    flags = [*FLAGS, "--max_steps", "4", "--transition_probability", "0.3"]
    assert run_script(*flags, "--out", tmp_path / "plain").code == 0
    done = run_script(*flags, "--out", tmp_path / "compiled", "--compile")
    assert done.code == 0, done.err
    assert "compiled (" in done.out + done.err
    for one, other in zip(*(read_log(tmp_path / name / "log.csv") for name in ("plain", "compiled"))):
        assert float(other["loss"]) == pytest.approx(float(one["loss"]), rel=1e-2)
