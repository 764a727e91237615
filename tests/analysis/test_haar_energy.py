"""Skips set to zero: exactly, only inside, and what remains of details with and without averages."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.analysis import haar_energy as command
from ssd.analysis.haar_energy import ablate, open_denoiser, without_skips
from ssd.evaluation.given_images import ImageBatch
from ssd.operators import haar

from ..evaluation.conftest import save_model

SETTINGS = {"in_channels": 1, "out_channels": 1, "layers_per_block": 1, "attention_resolutions": ()}


def new_unet(downsample_type: str) -> FlexiUNet2DModel:
    """As it starts, residual blocks adding nothing, but with an output: its decoder mixes channels pixel by pixel."""
    torch.manual_seed(0)
    unet = FlexiUNet2DModel(16, block_out_channels=(32, 64, 64), downsample_type=downsample_type, **SETTINGS)
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.normal_(unet.conv_out.weight[:, :, 1, 1])
    return unet.eval()


def ablations(downsample_type: str, t: int = 100) -> list[command.Ablation]:
    unet = new_unet(downsample_type)
    denoiser = open_denoiser(SSDPipeline(unet, SSDScheduler(sample_size=16, num_levels=3)))
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return ablate(denoiser, [ImageBatch(images, list(range(4)), None)], t, seed=0)


@torch.no_grad()
def test_skips_are_zero_inside_and_back_outside(monkeypatch) -> None:
    unet = FlexiUNet2DModel(16, block_out_channels=(32, 64, 64), downsample_type="average", **SETTINGS).eval()
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(2, 1, 16, 16)
    before = unet(x, 5).sample
    with without_skips(unet, [0, 1]):
        found = unet(x, 5).sample
    with pytest.raises(RuntimeError, match="stopped"), without_skips(unet, [0]):
        raise RuntimeError("stopped")
    assert torch.equal(unet(x, 5).sample, before)
    for stage in (0, 1):
        block = unet.up_blocks[-1 - stage]
        plain = block.forward
        monkeypatch.setattr(
            block,
            "forward",
            lambda x, temb, skips, *rest, plain=plain: plain(x, temb, [torch.zeros_like(s) for s in skips], *rest),
        )
    assert torch.equal(unet(x, 5).sample, found)
    assert float((found - before).norm()) > 0.01 * float(before.norm())


@pytest.mark.parametrize("t", [100, 555])
def test_averages_alone_pass_no_details(t: int) -> None:
    """Theorem 2 for a decoder without convolutions over pixels: nothing finer than the stage that has its skips."""
    found = ablations("average", t)
    assert [row.kept for row in found] == [(16, 16), (8, 8), (4, 4)]
    for row in found[1:]:
        assert row.details(row.energies) < 1e-10 * sum(row.energies.values())
        assert row.wrong == pytest.approx(1, abs=1e-6)
    if t == 100:
        assert found[1].details(found[1].full) > 1e-3 * sum(found[1].full.values())
        assert found[1].remaining < 1e-6


def test_convolutions_between_stages_make_details_up() -> None:
    """The negative control: the published upsampling mixes neighbours."""
    assert ablations("conv")[1].share(ablations("conv")[1].energies) > 1e-4


def test_energies_are_those_of_the_images() -> None:
    rows = ablations("average")
    assert rows[0].energies == rows[0].full
    assert rows[0].details(rows[0].full) == 0
    assert rows[0].error == rows[0].full_error
    assert len({tuple(row.truth.values()) for row in rows}) == 1
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    detail = images.double() - haar.project(images.double(), 2)
    assert rows[2].details(rows[2].truth) == pytest.approx(float(detail.square().mean()), rel=1e-9)
    assert rows[2].share(rows[2].truth) == pytest.approx(float(detail.square().sum() / images.double().square().sum()))
    for row in rows:
        torch.testing.assert_close(row.pictures[1], haar.project(row.pictures[0], row.halvings))


def run(capsys, *arguments: str) -> str:
    command.main(["--data", "digits", "--num", "6", *arguments])
    return capsys.readouterr().out


def test_the_command(capsys, tmp_path) -> None:
    model, out = save_model(tmp_path / "m", downsample_type="average"), tmp_path / "new"
    lines = run(capsys, "--model", str(model), "--timesteps", "[800, 100]", "--out", str(out)).splitlines()
    assert lines[0] == "means over 6 images of digits"
    assert [line.split()[0] for line in lines[2:-2]] == ["100", "100", "800"]  # the coarse level has one stage
    assert lines[-2:] == [f"wrote {out}/haar_energy.{suffix}" for suffix in ("json", "png")]
    found = json.loads((out / "haar_energy.json").read_text())
    for row in found["rows"]:
        for kind in ("output", "full", "truth"):
            assert sum(row[kind]["shares"].values()) == pytest.approx(1, abs=1e-9)
    assert found["rows"][1]["kept"] == [8, 8]
    assert found["rows"][1]["remaining"] > 0
    assert (out / "haar_energy.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timesteps", "[1000]"], "--timesteps must be in 0..999, got 1000."),
        (["--timesteps", "[]"], "--timesteps must name at least one, got an empty list."),
        (["--out", "/dev/null/x"], "cannot be a folder"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, arguments: list[str], message: str) -> None:
    model = save_model(tmp_path / "m")
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "--model", str(model), *arguments)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_other_models_are_refused(capsys, tmp_path) -> None:
    unet = new_unet("average")
    SSDPipeline(unet, SSDScheduler(sample_size=16, num_levels=1, prediction_type="epsilon")).save_pretrained(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "--model", str(tmp_path))
    assert "This is for networks that predict the image" in capsys.readouterr().err
