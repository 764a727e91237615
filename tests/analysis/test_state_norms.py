"""Norms of VDVAE's states against a plain recomputation, the two measures of a clock, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssd.analysis import state_norms as command
from ssd.analysis.state_norms import NormSeries, new_network, rank_correlation, share_in_order, state_norms
from ssd.analysis.vdvae_inputs import NumberedIntegers, noise_of_cells
from ssd.publishing.saving import load_vdvae_network
from vdvae import VDVAEModel

from .small_vdvae import small_vdvae, some_integers

COUNT = 5


def images() -> NumberedIntegers:
    return NumberedIntegers(some_integers(COUNT), list(range(COUNT)))


def plain_norm(x: torch.Tensor) -> list[float]:
    return [float((image * image).sum() ** 0.5) for image in x]


def plain_bottom_up(model: VDVAEModel) -> list[list[float]]:
    x = model.encoder.in_conv(model.encoder_input(some_integers(COUNT)))
    norms = [plain_norm(x)]
    for number, (_, pool) in enumerate([(8, 1), (8, 1), (8, 2), (4, 1), (4, 4), (1, 1), (1, 1)]):
        x = x + model.encoder.blocks[number](x)
        x = F.avg_pool2d(x, pool) if pool > 1 else x
        norms.append(plain_norm(x))
    return norms


def plain_prior(model: VDVAEModel) -> list[list[float]]:
    """The layout is 1x2,4m1,4x2r2,8m4,8x1: cells 0 1 | 2 3 4 3 4 | 5 6."""
    noise = noise_of_cells(model, range(COUNT), 0, "prior norms")
    starts = {side: model.decoder.initial_states[str(side)] for side in (1, 4, 8)}
    x, norms = starts[1].expand(COUNT, -1, -1, -1), []
    for index, number in enumerate([0, 1, 2, 3, 4, 3, 4, 5, 6]):
        if number in (2, 5):
            side = x.shape[-1]
            new, times = (4, 4) if side == 1 else (8, 2)
            x = starts[new] + x.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)
        cell = model.decoder.cells[number]
        mean, log_scale, shift = cell.prior(x).split([2, 2, 8], dim=1)
        x = x + shift + cell.project(mean + log_scale.exp() * noise[index])
        x = x + cell.block(x)
        norms.append(plain_norm(x))
    return norms


def test_norms_are_those_of_a_plain_computation() -> None:
    model = small_vdvae().double()
    found = state_norms(model, images(), batch_size=3, seed=0)
    assert found["bottom_up"].resolutions == [8, 8, 8, 4, 4, 1, 1, 1]
    assert found["prior"].resolutions == found["posterior"].resolutions == [1, 1, 4, 4, 4, 4, 4, 8, 8]
    np.testing.assert_allclose(found["bottom_up"].norms.T, plain_bottom_up(model), rtol=1e-10)
    np.testing.assert_allclose(found["prior"].norms.T, plain_prior(model), rtol=1e-10)
    noise = noise_of_cells(model, range(COUNT), 0, "posterior norms")
    states = model.encode(some_integers(COUNT), noise, return_states=True).states
    np.testing.assert_allclose(found["posterior"].norms.T, [plain_norm(state) for state in states], rtol=1e-10)


def test_an_image_does_not_depend_on_the_others() -> None:
    model = small_vdvae().double()
    all_of_them = state_norms(model, images(), batch_size=5, seed=0)
    alone = state_norms(model, NumberedIntegers(some_integers(COUNT)[3:4], [3]), batch_size=1, seed=0)
    for name, series in all_of_them.items():
        np.testing.assert_allclose(series.norms[3:4], alone[name].norms, rtol=1e-10)


def test_a_made_up_clock() -> None:
    assert rank_correlation(np.array([1.0, 1.1, 5.0, 5.1])) == pytest.approx(1)
    assert rank_correlation(np.array([4.0, 3.0, 1.0])) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)
    assert rank_correlation(np.array([1.0])) is None
    assert rank_correlation(np.array([1.0, 1.0 + 1e-7])) is None
    series = NormSeries([8, 8, 4, 4], np.array([[1.0, 2.0, 9.0, 7.0], [2.5, 3.0, 10.0, 8.5]]))
    assert (series.clock(8), series.clock(4)) == (pytest.approx(1), pytest.approx(-1))
    assert (series.order(8), series.order(4)) == (0.75, 0)
    np.testing.assert_allclose(series.std, np.std(series.norms, axis=0, ddof=1))


def test_the_order_is_that_of_all_pairs() -> None:
    norms = np.random.default_rng(0).normal(size=(7, 4)) + np.arange(4)
    pairs = [np.mean(later[:, None] > earlier[None]) for j, later in enumerate(norms.T) for earlier in norms.T[:j]]
    assert share_in_order(norms) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert share_in_order(norms[:, :1]) is None


def test_normalised_states_have_no_clock() -> None:
    for state_norm, lengths in (("unit", {1: 1, 4: 1, 8: 1}), ("rms", {1: 8**0.5, 4: 128**0.5, 8: 512**0.5})):
        series = state_norms(small_vdvae(state_norm=state_norm), images(), 5, 0)["prior"]
        for side, length in lengths.items():
            np.testing.assert_allclose(series.norms[:, series.blocks_of(side)], length, rtol=1e-5)
            assert series.clock(side) is None
            assert series.order(side) is None


def test_the_new_network_is_new_and_a_function_of_the_seed() -> None:
    model = small_vdvae()
    state = torch.random.get_rng_state()
    first, second, other = (new_network(model, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.config == model.config
    name = "encoder.in_conv.weight"
    assert torch.equal(first.get_parameter(name), second.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))
    assert float(first.get_parameter("decoder.cells.0.prior.c4.weight").abs().max()) == 0  # as before training


def run(capsys, *arguments: str) -> list[str]:
    command.main(["--data", "digits", "--num", "6", *arguments])
    return capsys.readouterr().out.splitlines()


def test_the_command(capsys, tmp_path) -> None:
    small_vdvae().save_pretrained(tmp_path / "network")
    out = tmp_path / "new"
    lines = run(capsys, "--model", str(tmp_path / "network"), "--out", str(out))
    assert lines[0] == "means over 6 images of digits"
    assert len(lines) == 2 + 9 + 2  # three resolutions in each of three passes
    assert lines[-2:] == [f"wrote {out}/state_norms.{suffix}" for suffix in ("json", "png")]
    assert (out / "state_norms.png").read_bytes()[:4] == b"\x89PNG"
    passes = json.loads((out / "state_norms.json").read_text())["passes"]
    assert list(passes) == ["bottom_up", "posterior", "prior"]
    assert [row["resolution"] for row in passes["prior"]["blocks"]] == [1, 1, 4, 4, 4, 4, 4, 8, 8]
    assert lines[-3].split()[:4] == ["top-down,", "prior", "8", "2"]
    assert float(lines[-3].split()[4]) == pytest.approx(passes["prior"]["blocks"][7]["mean"], rel=1e-3)


def mistake(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        run(capsys, *arguments)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_mistakes_are_one_line(capsys, tmp_path) -> None:
    small_vdvae().save_pretrained(tmp_path / "m")
    model = ["--model", str(tmp_path / "m")]
    assert "cannot be a folder" in mistake(capsys, *model, "--out", "/dev/null/x")
    assert "--num must be at least 2, got 1." in mistake(capsys, *model, "--num", "1")
    assert "Unknown data set 'nowhere'" in mistake(capsys, *model, "--data", "nowhere")
    assert "--device nowhere cannot be used" in mistake(capsys, *model, "--device", "nowhere")


def test_a_pipeline_has_its_network_in_a_folder(tmp_path) -> None:
    model = small_vdvae()
    model.save_pretrained(tmp_path / "network")
    model.save_pretrained(tmp_path / "pipeline" / "vdvae")
    model.save_pretrained(tmp_path / "killed" / ".next-pipeline" / "vdvae")
    for name in ("network", "pipeline", "killed"):
        loaded = load_vdvae_network(str(tmp_path / name), "cpu")
        assert loaded.config.enc_blocks == model.config.enc_blocks
        assert not loaded.training
        torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_other_folders_are_refused(capsys, tmp_path) -> None:
    assert "is not a VDVAE: give a folder" in mistake(capsys, "--model", str(tmp_path / "none"))
    small_vdvae().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    for changes, message in (
        ({"_class_name": "UNet2DModel"}, "names the class 'UNet2DModel' instead of 'VDVAEModel'"),
        ({"enc_blocks": "9x"}, "does not describe a network: '9x' in '9x' is not a block"),
        ({"surplus": 1}, "has settings that this version does not know: surplus."),
        ({"width": 16}, "encoder.in_conv.weight is (8, 1, 3, 3) in the file and (16, 1, 3, 3) by the configuration"),
        ({"enc_blocks": "8x2,8d2,4x1,4d4,1x3"}, "they lack 8 tensors, such as encoder.blocks.7.c1.bias"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(settings | changes))
        assert message in mistake(capsys, "--model", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(settings))
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "diffusion_pytorch_model.safetensors is truncated or damaged" in mistake(capsys, "--model", str(tmp_path))
    weights.unlink()
    assert "diffusion_pytorch_model.safetensors is missing" in mistake(capsys, "--model", str(tmp_path))


def test_a_broken_network_is_one_line(capsys, tmp_path) -> None:
    model = small_vdvae()
    model.decoder.gain.fill_(float("nan"))
    model.out_conv.bias.fill_(float("nan"))
    model.decoder.initial_states["4"].fill_(float("nan"))
    model.save_pretrained(tmp_path)
    with pytest.raises(SystemExit, match="1"):
        run(capsys, "--model", str(tmp_path), "--out", str(tmp_path / "new"))
    assert "The network gives NaN or infinity" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
