"""Frames and costs as HTML."""

from __future__ import annotations

import base64
import io
import re
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ssd.demo.actions import draw
from ssd.demo.choice import Choice
from ssd.demo.frames import empty_frame
from ssd.demo.view import progress_text, ruler_html, stage_html, status_html
from ssd.sampling.pictures import to_uint8

CHOICE = Choice(0, (3, 3, 3))


def pictures(html: str, kind: str) -> dict[int, Image.Image]:
    """The pictures in a stage, by their level."""
    found = re.findall(rf'data-kind="{kind}" data-level="(\d)".*?base64,([\w+/=]+)"', html)
    return {int(level): Image.open(io.BytesIO(base64.b64decode(data))) for level, data in found}


@pytest.mark.parametrize("kind", ["model", "classes"])
def test_every_level_has_its_true_relative_size(kind: str, request) -> None:
    model = request.getfixturevalue(kind)
    *_, running, done = draw(model, replace(CHOICE, class_=0 if model.class_names else None), threading.Event())
    for frame in (running, done):
        html = stage_html(frame, model.sizes)
        for shown, expected in (("state", frame.states), ("picture", frame.pictures)):
            found = pictures(html, shown)
            assert {level: picture.size[0] for level, picture in found.items()} == {0: 256, 1: 128, 2: 64}
            for level, picture in found.items():
                small = np.asarray(picture)[8::16, 8::16]
                pixels = to_uint8(expected[level][None])[0]
                np.testing.assert_array_equal(small, pixels[..., 0] if model.channels == 1 else pixels)
                np.testing.assert_array_equal(np.asarray(picture), small.repeat(16, 0).repeat(16, 1))
                assert f'width="{picture.width}" height="{picture.height}"' in html


def test_only_a_finished_picture_can_be_redrawn_and_the_cost_is_said_before(model) -> None:
    *_, running, done = draw(model, CHOICE, threading.Event())
    clicks = [CHOICE.costs(model, level) for level in range(3)]
    assert "data-redraw" not in stage_html(running, model.sizes, clicks)
    assert "data-redraw" not in stage_html(replace(running, ending="stopped"), model.sizes, clicks)
    assert "data-redraw" not in stage_html(done, model.sizes)
    html = stage_html(done, model.sizes, clicks)
    assert re.findall(r'data-redraw="(\d)"', html) == ["2", "1"]
    assert "7 network calls" in html  # the last step at 4 x 4, and all finer ones
    assert "4 network calls" in html


def test_the_empty_stage_has_places_of_the_right_sizes(model) -> None:
    html = stage_html(empty_frame(model), model.sizes)
    assert re.findall(r"width:(\d+)px;height:\1px", html) == ["64", "128", "256"] * 2
    assert "<img" not in html


def test_the_ruler_adds_up(model) -> None:
    costs = CHOICE.costs(model)
    html = ruler_html(costs)
    assert [float(share) for share in re.findall(r"width:([\d.]+)%", html)] == pytest.approx(
        [100 * cost.gflops / sum(c.gflops for c in costs) for cost in reversed(costs)], abs=0.05 + 1e-9
    )
    assert "One picture costs <b>9 network calls, " in html
    unknown = [replace(cost, gflops=None, per_call=None) for cost in costs]
    assert "GFLOPs" not in ruler_html(unknown)
    assert "One picture costs <b>9 network calls</b>." in ruler_html(unknown)


def test_text_of_visitors_cannot_become_html() -> None:
    assert "<script>" not in status_html("<script>alert(1)</script>", "error")


def test_where_the_chain_is(model) -> None:
    frame = empty_frame(model)
    assert progress_text(frame, model.sizes) == "Waiting for the network .."
    assert progress_text(replace(frame, step=2, steps=9), model.sizes) == "Step 2 of 9, at 4 x 4 pixels."
    assert progress_text(replace(frame, step=2, ending="stopped"), model.sizes) == "Stopped after step 2."
