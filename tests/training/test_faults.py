"""What can be wrong with a run's folder: one line that says what, nothing lost, and the advice works."""

import errno
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from ssd.commands.lock import hold_folder
from ssd.pipelines.saved_files import WEIGHTS
from ssd.publishing.saving import load_any_pipeline
from ssd.training import saving
from ssd.training.log import CsvTracker, read_log

from ..conftest import TINY, run_script
from .runs import SCRIPTS, SSD, TRAIN, VDVAE_TINY, Started, final_tensors, largest_difference

FLAGS = [TRAIN, *TINY, "--data", "digits"]


@pytest.fixture(scope="module", params=SCRIPTS, ids=lambda script: script.part)
def script(request):
    return request.param


@pytest.fixture(scope="module")
def flags(script):
    """Of a run whose length is still open."""
    return FLAGS if script is SSD else [script.path, *VDVAE_TINY]


@pytest.fixture(scope="module")
def run(flags, tmp_path_factory):
    """Four steps with a checkpoint at the second."""
    out = tmp_path_factory.mktemp("run") / "x"
    assert run_script(*flags, "--out", out, "--max_steps", "4", "--save_every", "2").code == 0
    return out


@pytest.fixture
def copied(run, tmp_path):
    """A copy that the test may damage."""
    shutil.copytree(run, tmp_path / "x")
    return tmp_path / "x"


def files(out) -> dict:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def resume(flags):
    """Continues a run, by default up to step 6."""

    def go_on(out, *more: str, steps: str = "6"):
        return run_script(*flags, "--out", out, "--max_steps", steps, "--resume", *more)

    return go_on


def test_a_trained_pipeline_without_checkpoints_is_not_overwritten(copied, flags, resume) -> None:
    shutil.rmtree(copied / "checkpoints")
    before = files(copied)
    resume(copied).assert_one_line_error("checkpoints/ are gone", f"--init_from {copied}", "--overwrite")
    assert files(copied) == before
    other = copied.parent / "y"
    assert run_script(*flags, "--out", other, "--max_steps", "1", "--init_from", copied).code == 0


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b"!!python/object:os.system x", b"\xff\xfe\x00", b"a: [\n", b"a:\tb: c"]
)
def test_damaged_settings_are_taken_from_the_checkpoint(copied, resume, content: bytes) -> None:
    (copied / "train_config.yaml").write_bytes(content)
    resume(copied, "--global_batch_size", "4", "--seed", "7").assert_one_line_error("--seed 7", "started with 0")
    done = resume(copied, steps="4")
    assert done.code == 0, done.err
    assert (copied / "train_config.yaml").read_text().startswith("res: ")
    shutil.rmtree(copied / "checkpoints")
    (copied / "train_config.yaml").write_bytes(content)
    (copied / "model_index.json").unlink()
    resume(copied).assert_one_line_error("train_config.yaml", "--overwrite")


def test_a_damaged_log_is_kept_and_a_new_one_begins(copied, resume) -> None:
    (copied / "log.csv").write_bytes(b"\x00\xffgarbage")
    done = resume(copied)
    assert done.code == 0, done.err
    assert (copied / "log_damaged.csv").read_bytes() == b"\x00\xffgarbage"
    assert [row["step"] for row in read_log(copied / "log.csv")] == ["5", "6"]


def test_a_last_line_that_was_cut_is_written_again(copied, resume) -> None:
    text = (copied / "log.csv").read_text()
    (copied / "log.csv").write_text(text + "5,0.1")
    assert resume(copied).code == 0
    assert [row["step"] for row in read_log(copied / "log.csv")] == ["1", "2", "3", "4", "5", "6"]
    assert not (copied / "log_damaged.csv").exists()


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", "step,loss\nx,2\n", "step,loss\n1,2,3\n2,1\n", "step,loss,c\n1\n2,1,1\n"]
)
def test_what_is_not_a_log_is_noticed(tmp_path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match=r"log\.csv is not a log"):
        read_log(tmp_path / "log.csv")
    CsvTracker(tmp_path / "log.csv", []).start()
    assert (tmp_path / "log_damaged.csv").read_text() == text


def test_the_learning_rate_may_change_and_the_change_is_written_down(copied, script, resume) -> None:
    rate, norm = ("0.0001", "0.0") if script is SSD else ("0.01", "200.0")
    done = resume(copied, "--learning_rate", "1e-5", "--max_grad_norm", "1")
    assert done.code == 0, done.err
    assert f"note: learning_rate changes from {rate} to 1e-05." in done.out
    assert f"note: max_grad_norm changes from {norm} to 1.0." in done.out
    before = [float(rate)] * 4 if script is SSD else [0.0, 0.002, 0.004, 0.006]  # which has warm-up
    after = [1e-5] * 2 if script is SSD else [8e-6, 1e-5]
    found = [float(row["learning_rate"]) for row in read_log(copied / "log.csv")]
    assert found == pytest.approx([*before, *after])
    again = resume(copied, "--learning_rate", "1e-5", "--max_grad_norm", "1", steps="7")
    assert again.code == 0
    assert "changes from" not in again.out
    changes = json.loads((copied / "checkpoints/step_00000007/state.json").read_text())["changes"]
    assert changes[0] == {"step": 4, "setting": "learning_rate", "before": float(rate), "after": 1e-5}
    assert len(changes) == 2
    assert f"learning_rate {rate} -> 1e-05 at step 4" in (copied / "README.md").read_text()
    resume(copied, "--weight_decay", "0.5", steps="8").assert_one_line_error("--weight_decay 0.5")


def write_pictures(path, count: int) -> str:
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8))
    return f"npz:{path}"


def test_a_run_continues_with_the_data_that_it_began_with(tmp_path) -> None:
    flags = [TRAIN, *TINY, "--out", tmp_path / "x", "--data"]
    data = write_pictures(tmp_path / "a.npz", 10)
    assert run_script(*flags, data, "--max_steps", "2").code == 0
    moved = write_pictures(tmp_path / "moved.npz", 10)  # elsewhere, the same pictures
    done = run_script(*flags, moved, "--max_steps", "3", "--resume")
    assert done.code == 0, done.err
    write_pictures(tmp_path / "a.npz", 12)
    before = files(tmp_path / "x")
    again = [*flags, data, "--max_steps", "4", "--resume"]
    run_script(*again).assert_one_line_error(
        "changed since step_00000003", "count was 10 and is 12", "--accept_new_data"
    )
    assert files(tmp_path / "x") == before
    assert run_script(*again, "--accept_new_data").code == 0


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_runs_at_once_exactly_one_trains(script, flags, tmp_path, first: int) -> None:
    both, out = [*flags[1:], "--max_steps", "60", "--save_every", "60"], tmp_path / "x"
    runs = [Started(out, *both, script=script.path), Started(out, *both, script=script.path)][:: 1 if first else -1]
    done = [started.wait() for started in runs]
    assert sorted(outcome.code for outcome in done) == [0, 2], [outcome.err for outcome in done]
    refused = next(outcome for outcome in done if outcome.code == 2)
    assert any(part in refused.err for part in ("is in use by", "meanwhile", "holds another run")), refused.err
    assert len(read_log(out / "log.csv")) == 60


def test_a_folder_in_use_is_refused_and_one_of_a_dead_holder_taken_over(copied, resume) -> None:
    before = files(copied)
    with hold_folder(copied):
        resume(copied).assert_one_line_error(f"process {os.getpid()}", "give another folder")
    assert files(copied) == before
    dead = os.fork()
    if dead == 0:
        held = hold_folder(copied)
        held.__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(dead, 0)
    done = resume(copied)
    assert done.code == 0, done.err
    assert f"was left by process {dead}" in done.out


def test_a_checkpoint_of_another_network_is_refused(tmp_path) -> None:
    """As when the classes of the data changed: the embeddings no longer fit."""
    images, labels = np.zeros((8, 16, 16, 3), dtype=np.uint8), np.arange(8)
    flags = [TRAIN, *TINY, "--data", f"npz:{tmp_path / 'a.npz'}", "--out", tmp_path / "x", "--class_conditional"]
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    assert run_script(*flags, "--max_steps", "1").code == 0
    np.savez(tmp_path / "a.npz", images=images, labels=labels % 3)
    again = run_script(*flags, "--max_steps", "2", "--resume", "--accept_new_data")
    again.assert_one_line_error("of another network", "class_embedding.weight is [9, 128] there and [4, 128] here")


def test_names_do_not_steer_the_terminal(tmp_path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    (folder / "dead\x1b[2Jlink.png").symlink_to(folder / "nowhere")
    flags = [TRAIN, *TINY, "--data", f"folder:{folder}", "--out", tmp_path / "x", "--max_steps", "1"]
    done = run_script(*flags)
    assert done.code == 0, done.err
    assert "dead\\x1b[2Jlink.png" in done.out
    (folder / "bad\x1b[2J.png").write_text("not a picture")
    run_script(*flags, "--overwrite").assert_one_line_error("bad\\x1b[2J.png is not an image")


def kill_at(monkeypatch, module, name: str, call: int, before: bool) -> None:
    """End the process at one call of a function, as kill -9 does."""
    original, calls = getattr(module, name), [0]

    def fatal(*arguments, **options):
        calls[0] += 1
        if calls[0] == call and before:
            os._exit(9)
        result = original(*arguments, **options)
        if calls[0] == call:
            os._exit(9)
        return result

    monkeypatch.setattr(module, name, fatal)


@pytest.mark.parametrize("before", [True, False], ids=["before the pipeline", "after the pipeline"])
@pytest.mark.parametrize("call", [1, 2], ids=["on the way", "last step"])
def test_killed_between_checkpoint_and_pipeline(
    run, script, flags, resume, tmp_path, monkeypatch, call: int, before: bool
) -> None:
    out = tmp_path / "x"
    child = os.fork()
    if child == 0:
        kill_at(monkeypatch, saving, "save_pipeline", call, before)
        run_script(*flags, "--out", out, "--max_steps", "4", "--save_every", "2")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    done = resume(out, "--save_every", "2", steps="4")
    assert done.code == 0, done.err
    assert largest_difference(final_tensors(out, 4), final_tensors(run, 4)) == 0
    weights = f"{script.part}/{WEIGHTS}"
    assert largest_difference(load_file(out / weights), load_file(run / weights)) == 0
    assert "4 of 4" in (out / "README.md").read_text()
    load_any_pipeline(str(out), "cpu")


def test_weights_that_exploded_are_not_called_good(tmp_path) -> None:
    done = run_script(
        *FLAGS, "--out", tmp_path / "x", "--max_steps", "6", "--save_every", "3", "--learning_rate", "1e5"
    )
    assert done.code == 1
    assert "The weights have exploded" in done.err
    assert "There is no good checkpoint yet" in done.err
    assert not list((tmp_path / "x/checkpoints").glob("step_*"))
    assert not (tmp_path / "x/model_index.json").exists()


def test_norm_of_all_tensors() -> None:
    assert saving.norm_of({"a": torch.tensor([3.0]), "b": torch.tensor([[0.0, 4.0]])}) == pytest.approx(5)
    assert saving.norm_of({"a": torch.tensor([float("nan")])}) != 5


def test_the_last_words_name_what_is_there(flags, tmp_path) -> None:
    done = run_script(*flags, "--out", tmp_path / "x", "--max_steps", "1")
    assert done.out.splitlines()[-1] == (
        f"Finished after 1 steps: {tmp_path / 'x'}/ holds the pipeline, checkpoints/, log.csv."
    )


@pytest.mark.parametrize("where", ["log", "pipeline", "grid"])
def test_a_full_disk_is_one_line(copied, script, resume, monkeypatch, where: str) -> None:
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "log":
        monkeypatch.setattr(CsvTracker, "log", full)
    elif where == "pipeline":
        monkeypatch.setattr(DiffusionPipeline, "save_pretrained", full)
    else:
        monkeypatch.setattr("ssd.training.samples.image_grid", full)
    done = resume(copied, "--sample_every", "1", *script.sampling)
    assert done.code == 1
    assert len([line for line in done.err.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in done.err
    assert "No space left on device" in done.err
    assert "--resume" in done.err
