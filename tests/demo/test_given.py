"""Uploaded files: what is read, what is said of it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssd import BlurringScheduler, SSDPipeline
from ssd.commands.errors import UsageError
from ssd.demo.given import read_given
from ssd.demo.model import DemoModel

from .conftest import tiny_pipeline


def saved(folder: Path, name: str, mode: str = "L", size: tuple[int, int] = (8, 8)) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], len(mode) if mode != "L" else 1))
    Image.fromarray(pixels.astype(np.uint8).squeeze(), mode).save(folder / name)
    return folder / name


def test_a_picture_of_a_levels_size_stays_as_it_is(model, tmp_path) -> None:
    given = read_given(model, saved(tmp_path, "a.png"))
    expected = np.asarray(Image.open(tmp_path / "a.png")) / 255
    assert (given.level, given.note) == (1, "")
    torch.testing.assert_close(given.small[0, 0].double(), torch.from_numpy(expected), rtol=0, atol=1e-6)
    assert read_given(model, saved(tmp_path, "b.png", size=(4, 4))).level == 2


def test_what_is_changed_is_said(model, classes, tmp_path) -> None:
    colour = saved(tmp_path, "a.png", "RGB", (30, 20))
    given = read_given(model, colour)
    assert given.note == "The picture was made grey, as the model is, resized from 20 x 30 (height x width) to 8 x 8."
    assert given.small.shape == (1, 1, 8, 8)
    assert read_given(classes, colour).small.shape == (1, 3, 8, 8)
    assert "transparent" in read_given(classes, saved(tmp_path, "b.png", "RGBA")).note
    assert read_given(classes, saved(tmp_path, "c.png", "L")).note == ""  # grey is a colour, too


@pytest.mark.parametrize("name", ["note.txt", "cut.png", "empty.png", "picture.svg", "bad\x1b.png"])
def test_what_is_not_a_picture_is_a_sentence(model, tmp_path, name: str) -> None:
    whole = saved(tmp_path, "whole.png", size=(64, 64)).read_bytes()
    content = {"cut.png": whole[:200], "empty.png": b"", "picture.svg": b"<svg/>"}.get(name, b"hello")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=r"choose a picture, such as a PNG or JPEG file\.$") as caught:
        read_given(model, tmp_path / name)
    assert name in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_grow_pictures_says_so(tmp_path) -> None:
    pipe = tiny_pipeline()
    for other in (tiny_pipeline(num_levels=1), SSDPipeline(pipe.unet, BlurringScheduler(sample_size=16))):
        with pytest.raises(UsageError, match="takes an SSDScheduler with several levels"):
            read_given(DemoModel("x", other), saved(tmp_path, "a.png"))
