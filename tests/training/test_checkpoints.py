"""Checkpoints: whole or not at all, checked, and readable by what comes later."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from flexi_unet import FlexiUNet2DModel
from ssd.commands.errors import TrainingStopped
from ssd.training import checkpoints
from ssd.training.checkpoints import (
    Progress,
    TrainState,
    find_newest,
    gather_tensors,
    list_checkpoints,
    load_networks,
    load_optimizer,
    read_description,
    save_checkpoint,
)
from ssd.training.ema import EmaNetworks


def train_state(seed: int) -> TrainState:
    torch.manual_seed(seed)
    unet = FlexiUNet2DModel(8, block_out_channels=(32, 32), layers_per_block=1)
    ema = EmaNetworks(unet, [0.9, 0.99], torch.device("cpu"))
    state = TrainState(unet, ema, torch.optim.AdamW(unet.parameters(), lr=0.01, fused=True))
    for _ in range(3):
        one_step(state)
    return state


def one_step(state: TrainState, size: int = 4) -> None:
    """On the coarse level, so that some parameters have no moments."""
    state.optimizer.zero_grad()
    state.network(torch.ones(1, 3, size, size), 5).sample.sub(1).square().mean().backward()
    state.optimizer.step()
    state.ema.update(state.network.parameters())
    state.progress.step += 1


def all_tensors(state: TrainState) -> list[torch.Tensor]:
    return [*state.network.parameters(), *(p for network in state.ema.networks for p in network.parameters())]


def save(state: TrainState, folder, total_limit=2, milestone_every=0):
    described = state.describe({"seed": 0}, {"count": 7}, [])
    return save_checkpoint(gather_tensors(state), described, folder, total_limit, milestone_every)


def load(state: TrainState, checkpoint) -> None:
    load_networks(checkpoint, state.network, state.ema)
    load_optimizer(checkpoint, state)


@pytest.mark.parametrize("next_size", [4, 8])
def test_checkpoint_round_trip(tmp_path, next_size: int) -> None:
    state, other = train_state(0), train_state(1)
    state.progress = Progress(step=3, batches=6, images=24, global_batch=4, hours=0.5)
    checkpoint = save(state, tmp_path)
    assert {file.suffix for file in checkpoint.iterdir()} == {".safetensors", ".json"}
    assert (tmp_path / "latest").read_text() == checkpoint.name + "\n"
    load(other, checkpoint)
    assert other.progress == state.progress == read_description(checkpoint).progress
    assert other.ema.updates == 3
    for s in (state, other):  # the next step is the same too: Adam's moments and the averages' counts came back
        one_step(s, next_size)
    assert all(torch.equal(a, b) for a, b in zip(all_tensors(state), all_tensors(other)))
    described = json.loads((checkpoint / "state.json").read_text())
    assert described["versions"]["torch"] == torch.__version__
    assert (described["settings"], described["data"]) == ({"seed": 0}, {"count": 7})


def test_moments_are_named_by_their_parameters(tmp_path) -> None:
    state = train_state(0)
    moments = load_file(save(state, tmp_path) / "optimizer.safetensors")
    names = {name for name, parameter in state.network.named_parameters() if parameter in state.optimizer.state}
    assert 0 < len(names) < len(list(state.network.parameters()))
    assert moments.keys() == {f"{name}.{kind}" for name in names for kind in ("step", "exp_avg", "exp_avg_sq")}
    weight = state.network.conv_out.weight
    assert torch.equal(moments["conv_out.weight.exp_avg"], state.optimizer.state[weight]["exp_avg"])


def test_moments_by_position_are_still_read(tmp_path) -> None:
    """As version 0.1 wrote them: "17.exp_avg" is of parameter 17."""
    state, other = train_state(0), train_state(1)
    checkpoint = save(state, tmp_path)
    numbers = {name: number for number, (name, _) in enumerate(state.network.named_parameters())}
    path = checkpoint / "optimizer.safetensors"
    renamed = {}
    for key, value in load_file(path).items():
        name, _, kind = key.rpartition(".")
        renamed[f"{numbers[name]}.{kind}"] = value
    save_file(renamed, path)
    load(other, checkpoint)
    for s in (state, other):
        one_step(s, 8)
    assert all(torch.equal(a, b) for a, b in zip(all_tensors(state), all_tensors(other)))


def test_newest_checkpoints_and_milestones_are_kept(tmp_path) -> None:
    state = train_state(0)
    (tmp_path / ".part-1-step_00000009").mkdir()  # left by a crash
    for step in range(1, 8):
        state.progress.step = step
        save(state, tmp_path, milestone_every=3)
    kept = ["step_00000003", "step_00000006", "step_00000007"]
    assert [path.name for path in list_checkpoints(tmp_path)] == kept


def flip_a_byte(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def set_state(checkpoint, change) -> None:
    path = checkpoint / "state.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


DAMAGES = {
    "truncated": (lambda c: (c / "ema_1.safetensors").write_bytes(b"123"), "ema_1.safetensors has 3 bytes instead of"),
    "missing": (lambda c: (c / "ema_1.safetensors").unlink(), "ema_1.safetensors is missing"),
    "emptied": (lambda c: [path.unlink() for path in c.iterdir()], "state.json cannot be read"),
    "flipped": (lambda c: flip_a_byte(c / "unet.safetensors"), "unet.safetensors is damaged"),
    "zeroed": (
        lambda c: (c / "optimizer.safetensors").write_bytes(bytes((c / "optimizer.safetensors").stat().st_size)),
        "optimizer.safetensors is damaged",
    ),
    "half a state": (lambda c: (c / "state.json").write_text("{"), "state.json cannot be read"),
    "a list": (lambda c: (c / "state.json").write_text("[1]"), "state.json is malformed"),
    "binary": (lambda c: (c / "state.json").write_bytes(b"\xff\x00"), "state.json cannot be read"),
    "text for a number": (lambda c: set_state(c, lambda s: s["progress"].update(step="3")), "malformed (progress)"),
    "a negative step": (lambda c: set_state(c, lambda s: s["progress"].update(step=-3)), "malformed (progress)"),
    "no progress": (lambda c: set_state(c, lambda s: s.pop("progress")), "malformed (progress)"),
    "unknown progress": (lambda c: set_state(c, lambda s: s["progress"].update(x=1)), "malformed (progress)"),
    "a file elsewhere": (
        lambda c: set_state(c, lambda s: s["files"].update({"../x.safetensors": 3})),
        "state.json is malformed (files)",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_and_named(tmp_path, damage: str) -> None:
    state = train_state(0)
    good = save(state, tmp_path)
    state.progress.step += 1
    bad = save(state, tmp_path)
    make, fault = DAMAGES[damage]
    make(bad)
    found, notes = find_newest(tmp_path)
    assert found == good
    assert len(notes) == 1
    assert notes[0].startswith(f"skipped checkpoint {bad.name}: ")
    assert fault in notes[0]


def test_checkpoints_without_digests_are_still_read(tmp_path) -> None:
    """As version 0.1 wrote them: the files' sizes alone."""
    checkpoint = save(train_state(0), tmp_path)
    set_state(checkpoint, lambda s: s.update(files={name: entry["bytes"] for name, entry in s["files"].items()}))
    set_state(checkpoint, lambda s: [s.pop(name) for name in ("data", "changes")])
    assert find_newest(tmp_path) == (checkpoint, [])
    assert read_description(checkpoint).data == {}


@pytest.mark.parametrize("where", ["before", "during"])
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, where: str) -> None:
    state = train_state(0)
    good = save(state, tmp_path)
    state.progress.step += 1
    if where == "before":
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    else:
        write = checkpoints.save_file

        def fail_at_the_optimizer(tensors, path):
            write(tensors, path)
            if path.name.startswith("optimizer"):
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoints, "save_file", fail_at_the_optimizer)
    with pytest.raises(TrainingStopped, match=r"needs \d+ MiB\. step_00000003 is intact"):
        save(state, tmp_path)
    assert find_newest(tmp_path) == (good, [])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".part")] == []
