"""The sampling command of VDVAE: grids, folders that continue, the animation, and mistakes in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssd import VDVAEPipeline
from ssd.publishing.saving import save_pipeline
from ssd.sampling.vdvae import generate_vdvae, growing_frames
from vdvae import VDVAEModel

SAMPLE = "sample/sample_vdvae.py"


@pytest.fixture(scope="module")
def pipeline() -> VDVAEPipeline:
    torch.manual_seed(0)
    model = VDVAEModel(8, 1, "8x1,8d2,4x1", "4x1r2,8m4", width=8, latent_channels=2, num_mixtures=2, levels=17)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return VDVAEPipeline(model.eval())


@pytest.fixture(scope="module")
def model(pipeline, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    save_pipeline(pipeline, folder)
    return folder


@pytest.fixture
def flags(model, tmp_path) -> list:
    return ["--model", model, "--device", "cpu", "--out", tmp_path / "out"]


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def test_a_stopped_run_continues_with_the_same_images(flags, tmp_path, run_command) -> None:
    out, how = tmp_path / "out", ["--num", "5", "--temperature", "0.8", "--seed", "3"]
    done = run_command(SAMPLE, *flags, *how, "--grid", tmp_path / "whole.png")
    assert done.code == 0, done.err
    whole = pictures(out)
    assert len(whole) == 5
    assert Image.open(out / "000000.png").mode == "L"
    settings = json.loads((out / "samples.json").read_text())
    assert len(settings.pop("model")) == 64
    assert settings == {"temperature": 0.8, "seed": 3, "num": 5}
    (out / "000002.png").unlink()
    more = ["--grid", tmp_path / "again.png", "--animation", tmp_path / "a.gif", "--batch_size", "3"]
    done = run_command(SAMPLE, *flags, *how, *more)
    assert done.code == 0, done.err
    assert f"wrote 5 images to {out}; 4 of them were there" in done.out
    assert pictures(out) == whole
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert Image.open(tmp_path / "a.gif").n_frames > 1
    other = run_command(SAMPLE, *flags, "--num", "5", "--temperature", "[1,0.8]", "--seed", "3")
    other.assert_one_line_error("temperature is 0.8 there and [1.0, 0.8] here", "--overwrite")
    assert pictures(out) == whole


def test_an_image_depends_on_the_seed_and_its_number_alone(pipeline) -> None:
    def images(indices, **options) -> torch.Tensor:
        return torch.cat([part for _, part in generate_vdvae(pipeline, indices, 0.9, **options)])

    whole = images(range(8))
    assert torch.equal(images([6]), whole[6:7])
    assert torch.equal(images(range(8), batch_size=3), whole)
    assert not torch.equal(images(range(8), seed=1), whole)


def test_the_last_frame_is_the_image_and_the_first_knows_nothing_of_it(pipeline) -> None:
    frames = [np.asarray(frame) for frame in growing_frames(pipeline, range(4), 1.0)]
    assert len(frames) == len(pipeline.vdvae.cells) + 1
    [(_, images)] = generate_vdvae(pipeline, range(4))
    grey = ((images[0, 0] / 2 + 0.5) * 255).round().numpy()
    top_left = frames[-1][22 + 2 : 22 + 2 + 64 : 8, 2 : 2 + 64 : 8, 0]  # below the caption, every pixel 8 x 8
    assert np.array_equal(top_left, grey)
    assert not np.array_equal(frames[0][22:], frames[-1][22:])


MISTAKES = [
    (["--temperature", "hot", "--grid", "g.png"], ["temperature must be a number or a list of numbers, got hot"]),
    (["--temperature", "-1", "--grid", "g.png"], ["--temperature does not fit this model", "at least 0"]),
    (["--temperature", "[1]", "--grid", "g.png"], ["one for each of the resolutions 4, 8; got 1"]),
    (["--num", "0", "--grid", "g.png"], ["--num must be at least 1, got 0"]),
    (["--seed", "-1", "--grid", "g.png"], ["--seed must be at least 0, got -1"]),
    (["--grid", "g.jpg"], ["--grid g.jpg must end in .png"]),
    ([], ["Nothing to write"]),
]


@pytest.mark.parametrize(("more", "parts"), MISTAKES, ids=[" ".join(more) for more, _ in MISTAKES])
def test_mistakes_are_one_line(more, parts, model, run_command) -> None:
    run_command(SAMPLE, "--model", model, *more).assert_one_line_error(*parts)


def test_a_model_of_another_kind(tmp_path, run_command) -> None:
    run_command(SAMPLE, "--model", tmp_path, "--grid", "g.png").assert_one_line_error("is not a pipeline")


def test_a_broken_model_stops_with_the_first_image(pipeline, tmp_path, run_command) -> None:
    save_pipeline(pipeline, tmp_path / "m")
    broken = VDVAEPipeline.from_pretrained(tmp_path / "m")
    with torch.no_grad():
        broken.vdvae.decoder.bias.fill_(float("inf"))
    save_pipeline(broken, tmp_path / "m")
    done = run_command(SAMPLE, "--model", tmp_path / "m", "--num", "4", "--out", tmp_path / "out")
    assert done.code == 1
    assert "error: Image 0 cannot be drawn: the network gave NaN or infinity" in done.err
    assert not list(tmp_path.rglob("*.png"))
