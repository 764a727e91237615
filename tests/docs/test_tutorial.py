"""The pages of the tutorial are programs: they run, and what they show is true."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import flexi_unet
import ssd

from ..conftest import ROOT

SCRIPTS = sorted((ROOT / "docs" / "tutorial").glob("*.py"))


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch, tmp_path) -> Iterator[None]:
    """Pictures are thrown away, progress bars are not drawn, and files go into a folder of the test."""
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


@pytest.fixture
def untrained_model(tmp_path) -> None:
    """In the place of the model of page 3."""
    torch.manual_seed(0)
    unet = flexi_unet.FlexiUNet2DModel(
        16,
        in_channels=1,
        out_channels=1,
        block_out_channels=(4, 4, 4),
        layers_per_block=1,
        attention_resolutions=(8,),
        norm_num_groups=2,
        num_attention_heads=1,
    )
    for weights in unet.parameters():  # some are zero in a new network, and so would be all that it says
        torch.nn.init.normal_(weights, std=0.1)
    pipeline = ssd.SSDPipeline(unet, ssd.SSDScheduler(sample_size=16, num_levels=3))
    pipeline.save_pretrained(tmp_path / "runs" / "tutorial")


def run(name: str) -> dict:
    """What a page defined."""
    [path] = (path for path in SCRIPTS if path.stem == name)
    return runpy.run_path(str(path), run_name="__main__")


def numbers_after(words: str, text: str) -> list[float]:
    """The numbers that a page printed behind `words`."""
    return [float(number) for number in re.findall(re.escape(words) + r" *([-+\d.e]+)", text)]


def test_operators(capsys) -> None:
    page = run("1_operators")
    printed = capsys.readouterr().out
    assert abs(numbers_after("<Dx, y> - <x, D'y> =", printed)[0]) < 1e-12
    assert numbers_after("D of what it does not see:", printed)[0] < 1e-12
    assert page["difference"].abs().max() < 1e-12


def test_process(capsys) -> None:
    page = run("2_process")
    printed = capsys.readouterr().out
    # The new noise of a level change is float64: both sums of it are of order one.
    assert numbers_after("off sigma_t^2 I by", printed)[0] < 1e-12
    assert numbers_after("largest difference:", printed) == pytest.approx([0, 0], abs=1e-12)
    assert numbers_after("off DDPM's by", printed)[0] < 1e-12
    # Means of 20,000 numbers of variance at most 1, 64 of them, thrice: within six standard errors.
    off = numbers_after("mean off by at most", printed)
    assert len(off) == 3
    assert max(off) < 6 / page["number"] ** 0.5


def test_degradation() -> None:
    page = run("4_degradation")
    assert (page["posterior"].mean.flatten() - page["mean"]).abs().max() < 1e-12
    assert page["process"].operator(-1, 999).out_size == (4, 4)


@pytest.mark.usefixtures("untrained_model")
def test_callbacks(capsys) -> None:
    page = run("5_callbacks")
    assert [tuple(state.shape[-2:]) for _, state, _ in page["seen"]][-1] == (16, 16)
    # The same calls of the same network in batches of the same length.
    assert numbers_after("first order : largest difference to the uninterrupted image", capsys.readouterr().out) == [0]


def assert_adapters_come_and_go(page: dict, printed: str) -> None:
    """Merged weights and switched-off adapters give the same images, to the rounding of twenty float32 steps."""
    assert numbers_after("off what was drawn before by", printed)[0] < 1e-3
    assert numbers_after("off the adapter's images by", printed)[0] < 1e-3
    assert (page["after"] - page["before"]).abs().max() > 1e-2  # it learned something


@pytest.mark.parametrize("name", ["5_callbacks", "6_lora"])
def test_a_missing_model_is_one_line(name: str) -> None:
    if name == "6_lora":
        pytest.importorskip("peft")
    with pytest.raises(SystemExit, match=r"error: .*3_digits\.py"):
        run(name)


@pytest.mark.slow
def test_digits_and_the_pages_that_need_its_model(capfd) -> None:
    pytest.importorskip("peft")
    page = run("3_digits")
    assert Path("runs/tutorial/model_index.json").is_file()
    assert numbers_after("made small again, grown digits differ by", capfd.readouterr().out)[0] < 1e-3
    residuals = [float(row["residual_8x8"]) for row in page["rows"] if row["residual_8x8"]]
    assert residuals[-1] < residuals[0]
    run("5_callbacks")
    capfd.readouterr()
    page = run("6_lora")
    assert_adapters_come_and_go(page, capfd.readouterr().out)
    losses = page["losses"]
    assert sum(losses[-30:]) < sum(losses[:30])


def test_every_page_is_tested() -> None:
    assert [path.stem for path in SCRIPTS] == [
        "1_operators",
        "2_process",
        "3_digits",
        "4_degradation",
        "5_callbacks",
        "6_lora",
    ]
