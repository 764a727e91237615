"""Published VDVAE checkpoints: names, copies of shared blocks, the command, one line per mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ssd.publishing.published_vdvae import config_from_hparams, convert_vdvae, main, published_names
from ssd.publishing.saving import load_vdvae_pipeline
from vdvae import VDVAEModel
from vdvae.sizes import PUBLISHED, SIZES

from ..vdvae.golden import NAMES, Golden, load_golden


@pytest.fixture(scope="module", params=NAMES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return load_golden(request.param)


def with_all_copies(golden: Golden) -> dict[str, torch.Tensor]:
    """As torch saves it: a module that stands at several places is written once for each."""
    names = published_names(golden.model())
    return {copy: golden.weights[copies[0]] for copies in names.values() for copy in copies}


def settings(golden: Golden, folder: Path) -> list[str]:
    path = folder / "hparams.json"
    path.write_text(json.dumps(golden.config["hparams"]))
    numbers = [f"--{name}={golden.config[name]!r}" for name in ("input_shift", "input_scale")]
    return ["--hparams", str(path), *numbers, *(["--shared"] if golden.shared else [])]


def test_command_end_to_end(golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Copies and names as the published training writes them; not a bit differs after saving and loading."""
    file, out = tmp_path / "model-ema.th", tmp_path / "models" / "golden"
    torch.save({f"module.{name}": weight for name, weight in with_all_copies(golden).items()}, file)
    main([str(file), *settings(golden, tmp_path), "--out", str(out)])
    assert str(out) in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "model_index.json", "pipeline.json", "vdvae"]
    assert file.name in (out / "README.md").read_text()

    loaded, model = load_vdvae_pipeline(str(out), "cpu").vdvae, golden.model()
    for ours, copies in published_names(loaded).items():
        assert torch.equal(loaded.state_dict()[ours], golden.weights[copies[0]]), ours
    with torch.no_grad():
        noise = golden.cells("eps_posterior")
        first, second = (one.elbo(golden.images, noise) for one in (loaded, model))
    assert torch.equal(first.nll, second.nll)
    assert torch.equal(first.kl, second.kl)


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_fit_their_own_names(name: str) -> None:
    """On the meta device: every weight has exactly one published name of the right form."""
    with torch.device("meta"):
        model = VDVAEModel(**SIZES[name])
    names = published_names(model)
    assert all(len(copies) == 1 for copies in names.values())
    assert len({copies[0] for copies in names.values()}) == len(names)
    depth = len(model.cells)
    assert f"decoder.dec_blocks.{depth - 1}.resnet.c4.bias" in {copies[0] for copies in names.values()}


def test_settings_of_5_bits_and_custom_widths() -> None:
    hparams = {"image_size": 8, "width": 4, "zdim": 2, "enc_blocks": "8d8,1x3", "dec_blocks": "1x2,8m1"}
    more = {"custom_width_str": "1:8", "low_bit": True, "lr": 1e-3}
    config = config_from_hparams(hparams | more, shared=True)
    assert config["custom_widths"] == {1: 8}
    assert (config["levels"], config["input_levels"]) == (32, 256)
    assert (config["enc_blocks"], config["dec_blocks"]) == ("8d8,1x1r3", "1x1r2,8m1")
    assert VDVAEModel(**config).config.likelihood_compat == "published"


def test_the_result_shares_no_memory_with_the_file(golden: Golden) -> None:
    model = convert_vdvae(golden.weights, golden.arguments())
    pointers = {tensor.untyped_storage().data_ptr() for tensor in golden.weights.values()}
    assert not pointers & {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}


def change(weights: dict[str, torch.Tensor], what: str) -> dict[str, torch.Tensor]:
    name = "decoder.dec_blocks.1.z_proj.bias"
    if what == "lacks":
        return {key: weight for key, weight in weights.items() if key != "decoder.gain"}
    if what == "unknown":
        return weights | {"decoder.extra": torch.zeros(1)}
    return weights | {name: weights[name].new_zeros(3) if what == "shape" else weights[name] + 1}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("lacks", "it lacks decoder.gain. Was another preset meant?"),
        ("unknown", "it has the unknown decoder.extra."),
        ("shape", r"z_proj.bias .*\(3,\)"),
        ("copies", "should be the same block of shared weights, but they differ"),
    ],
)
def test_weights_that_do_not_fit(what: str, message: str) -> None:
    golden = load_golden("ws_vdvae_16" if what == "copies" else "vdvae_16")
    with pytest.raises(ValueError, match=message) as raised:
        convert_vdvae(change(with_all_copies(golden), what), golden.arguments())
    assert "\n" not in str(raised.value)


def fails(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as raised:
        main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert raised.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = load_golden("vdvae_16")
    file, out = tmp_path / "model.th", tmp_path / "out"
    torch.save(golden.weights, file)
    message = fails(capsys, file, "--preset", "cifar10", "--out", out)
    assert f"{file} cannot be converted" in message
    assert "lacks" in message
    assert "either --preset or --hparams" in fails(capsys, file, "--out", out)
    assert "a preset has its own" in fails(capsys, file, "--out", out, "--preset", "cifar10", "--shared")
    assert "does not exist" in fails(capsys, tmp_path / "none.th", "--preset", "cifar10", "--out", out)
    assert "'cifar10'" in fails(capsys, file, "--preset", "cifar100", "--out", out)
    assert "is a file" in fails(capsys, file, "--preset", "cifar10", "--out", file)
    (tmp_path / "lists.json").write_text("[1, 2]")
    assert "names and values" in fails(capsys, file, "--hparams", tmp_path / "lists.json", "--out", out)
    (tmp_path / "empty.json").write_text("{}")
    assert "lack image_size, width, zdim" in fails(capsys, file, "--hparams", tmp_path / "empty.json", "--out", out)
    (tmp_path / "text.json").write_text("width 3")
    assert "is not a JSON file" in fails(capsys, file, "--hparams", tmp_path / "text.json", "--out", out)
    assert not out.exists()
    out.mkdir()
    (out / "something").touch()
    assert "is not empty" in fails(capsys, file, "--preset", "cifar10", "--out", out)


class NotTensors:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code of a file was run",)


def test_a_file_with_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "code.th"
    torch.save({"decoder.gain": NotTensors()}, file)
    error = fails(capsys, file, "--preset", "cifar10", "--out", tmp_path / "out")
    assert "could run code" in error
    assert "code of a file was run" not in capsys.readouterr().out
