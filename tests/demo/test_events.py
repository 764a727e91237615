"""The page's events as plain functions: what is shown next, and nothing that is raised."""

from __future__ import annotations

import logging

import pytest
from PIL import Image

from ssd.demo.events import Events, Fields, Update, fields_of

FIELDS = Fields(4, [2, 2, 2])


def updates(events: Events, session: str = "a", fields: Fields = FIELDS) -> list[Update]:
    return list(events.draw(session, fields))


@pytest.fixture
def events(model) -> Events:
    return Events(model)


def assert_error(found: list[Update], message: str) -> None:
    """One update, which leaves the picture where it is and has one sentence."""
    [update] = found
    assert message in update.status
    assert "error" in update.status
    assert "Traceback" not in update.status
    assert update.stage is update.frame is update.address is update.code is None


def test_drawing_names_the_picture_once(events) -> None:
    first, *rest = updates(events)
    assert first.address == "?seed=4&steps=2,2,2"
    assert "torch_generator(4, " in first.code
    assert all(update.address is update.code is None for update in rest)
    assert rest[-1].frame.ending == "done"
    assert "Done. Seed 4." in rest[-1].status
    assert "data-redraw" in rest[-1].stage


def test_redrawing_and_growing(events, tmp_path) -> None:
    *_, drawn = updates(events)
    first, *_, last = events.redraw("a", FIELDS, drawn.frame, "before", 1, 77)
    assert first.address is None  # it names pictures from noise
    assert first.code.startswith("before\n")
    assert "Redrawn with seed 77; 8 x 8 pixels were kept." in last.status
    Image.new("RGB", (5, 5), "red").save(tmp_path / "small.png")
    first, *_, last = events.grow("a", FIELDS, str(tmp_path / "small.png"))
    assert "grows from 4 x 4 pixels, with seed 4. The picture was made grey" in last.status
    assert "Image.open('small.png')" in first.code


def test_mistakes_are_sentences(events, tmp_path) -> None:
    *_, drawn = updates(events)
    (tmp_path / "note.txt").write_text("hello")
    grown = list(events.grow("a", FIELDS, str(tmp_path / "note.txt")))
    assert_error(grown, "note.txt is not an image: choose a picture")
    assert_error(list(events.grow("a", FIELDS, None)), "Nothing was uploaded")
    assert_error(updates(events, fields=Fields(None, [2, 2, 2])), "The seed is empty")
    assert_error(updates(events, fields=Fields(-1, [2, 2, 2])), "The seed must be a whole number")
    for frame, level in ((None, 1), (drawn.frame, 0), (drawn.frame, 3)):
        assert_error(list(events.redraw("a", FIELDS, frame, "", level, 1)), "There is no finished picture")


def test_a_broken_network_and_a_bug_are_sentences(events, monkeypatch, caplog) -> None:
    def breaks(*_) -> None:
        raise RuntimeError("out of memory")

    hook = events.model.pipe.unet.register_forward_hook(breaks)
    with caplog.at_level(logging.ERROR):
        found = updates(events)
    assert_error(found[-1:], "the terminal that runs it says what")
    assert "out of memory" in caplog.text
    hook.remove()
    next(events.model.pipe.unet.parameters()).data.fill_(float("nan"))
    assert_error(updates(events)[-1:], "NaN or infinity")


def test_stop_is_of_one_session(events) -> None:
    long = Fields(4, [90, 2, 2])
    mine = events.draw("a", long)
    assert next(mine).frame.step == 0
    events.stop("b")
    events.stop("a")
    *_, last = mine
    assert last.frame.ending == "stopped"
    assert "Stopped after step" in last.status
    events.stop("a")  # nothing is left to stop
    assert updates(events)[-1].frame.ending == "done"


def test_costs_are_said_before_and_with_the_finished_picture(events) -> None:
    ruler, stage = events.costs(Fields(None, [2, 3, 4]), None)
    assert "9 network calls" in ruler
    assert stage is None
    *_, drawn = updates(events)
    _, stage = events.costs(Fields(0, [2, 3, 40]), drawn.frame)
    assert "41 network calls" in stage  # of a click on 8 x 8
    assert "The steps of the levels" in events.costs(Fields(0, [0, 3, 4]), None)[0]


def test_the_order_of_the_fields() -> None:
    assert fields_of([1, 2.0, "cat", 3, 4, 5]) == Fields(1, [3, 4, 5], "cat", 2.0)
