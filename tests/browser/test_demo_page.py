"""The page of `ssd demo` as a visitor has it: clicks, pixels, Stop, uploads, the address, and no other host."""

from __future__ import annotations

import base64
import io
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssd.commands.picture_grids import to_uint8
from ssd.demo.choice import Choice
from ssd.seeding import torch_generator

from .conftest import LOCAL, Server, served

pytestmark = pytest.mark.browser


def finish(page, step: int | None = None) -> None:
    """Wait for the last step of a picture."""
    last = "" if step is None else f"[data-step='{step}']"
    page.wait_for_selector(f".stage[data-ending='done']{last}")


def click_and_finish(page, selector: str) -> None:
    """Begin another picture, and wait for its last step."""
    page.click(selector)
    page.wait_for_selector(".stage[data-ending='']")
    finish(page)


def pixels(page, level: int = 0, kind: str = "picture") -> np.ndarray:
    """A picture on the page, (h, w, C), uint8, made as small as it is."""
    image = page.locator(f"img[data-kind='{kind}'][data-level='{level}']")
    factor = int(page.locator(".stage").get_attribute("data-factor"))
    shown = np.atleast_3d(Image.open(io.BytesIO(base64.b64decode(image.get_attribute("src").split(",")[1]))))
    box = image.bounding_box()
    assert (box["height"], box["width"]) == shown.shape[:2]  # the browser does not scale it
    return shown[factor // 2 :: factor, factor // 2 :: factor]


def expected(server: Server, choice: Choice) -> np.ndarray:
    """What the pipeline draws in this process."""
    arguments = {"generator": torch_generator(choice.seed, "image", 0), **choice.options(server.model)}
    return to_uint8(server.model.pipe(**arguments, output_type="latent").images)[0]


def status(page) -> str:
    return page.locator("#status .status").inner_text()


def upload(page, path: Path) -> None:
    page.set_input_files("input[type=file]", str(path))


def test_draw_shows_every_level_and_ends_with_the_pipelines_picture(server, opened) -> None:
    page = opened(server.address)
    assert page.locator(".stage img").count() == 0  # nothing is drawn before the click
    page.click("#draw")
    page.wait_for_selector("img[data-kind='state'][data-level='2']")
    finish(page, 20)
    generator = torch_generator(0, "image", 0)
    last = to_uint8(server.model.pipe(generator=generator, output_type="latent").images)[0]
    np.testing.assert_array_equal(pixels(page), last)
    assert [pixels(page, level, "state").shape[0] for level in range(3)] == [16, 8, 4]
    assert page.url.endswith("/?seed=0&steps=3,5,12")
    assert status(page) == "Done. Seed 0."


def test_another_picture_has_another_seed(server, opened) -> None:
    page = opened(server.address)
    click_and_finish(page, "#another")
    seed = int(page.locator("#seed input").input_value())
    assert f"seed={seed}&" in page.url
    np.testing.assert_array_equal(pixels(page), expected(server, Choice(seed, (12, 5, 3))))


def test_the_address_is_taken_and_drawn(server, opened) -> None:
    page = opened(f"{server.address}?seed=41&steps=2,3,4")
    finish(page, 9)
    assert page.locator("#seed input").input_value() == "41"
    assert page.locator("#steps-1 input[type=number]").input_value() == "3"
    np.testing.assert_array_equal(pixels(page), expected(server, Choice(41, (4, 3, 2))))
    page = opened(f"{server.address}?seed=41&steps=1")
    page.wait_for_selector(".status.error")
    assert "The address has steps='1'. The steps must be" in status(page)
    assert page.locator(".stage img").count() == 0


def test_the_cost_is_there_before_the_click(server, opened) -> None:
    page = opened(server.address)
    assert "20 network calls" in page.locator("#ruler").inner_text()
    slider = page.locator("#steps-0 input[type=number]")
    slider.fill("30")
    slider.press("Enter")
    page.wait_for_selector("#ruler :text('38 network calls')")
    page.click("#draw")
    finish(page, 38)
    assert "steps=3,5,30" in page.url


def test_stop_stops_within_a_second(server, opened) -> None:
    page = opened(f"{server.address}?seed=1&steps=100")
    page.wait_for_selector(".stage[data-ending='']:not([data-step='0'])")
    page.click("#stop")
    page.wait_for_selector(".stage[data-ending='stopped']", timeout=1000)
    assert re.fullmatch(r"Stopped after step \d+\. Seed 1\.", status(page))
    assert page.locator("[data-redraw]").count() == 0  # it is not a finished picture
    slider = page.locator("#steps-0 input[type=number]")
    slider.fill("4")
    slider.press("Enter")
    click_and_finish(page, "#draw")  # and the next one is whole
    np.testing.assert_array_equal(pixels(page), expected(server, Choice(1, (4, 100, 100))))


@pytest.mark.parametrize("level", [1, 2])
def test_a_click_on_a_level_redraws_everything_finer(server, opened, level: int) -> None:
    page = opened(f"{server.address}?seed=3&steps=3")
    finish(page, 9)
    before = pixels(page)
    page.click(f"[data-redraw='{level}']")
    page.wait_for_selector("#status :text('kept'):text('Done')")
    seed = int(re.search(r"Redrawn with seed (\d+)", status(page))[1])
    choice = Choice(3, (3, 3, 3))
    options = choice.options(server.model) | {"output_type": "pt"}
    image = server.model.pipe(generator=torch_generator(3, "image", 0), **options).images
    again = server.model.redraw()(
        image, level=level, generator=torch_generator(seed, "redraw", level), **options
    ).images
    np.testing.assert_array_equal(pixels(page), to_uint8(again * 2 - 1)[0])
    assert (pixels(page) != before).any()


def test_an_uploaded_picture_grows_and_a_wrong_one_is_a_sentence(server, opened, tmp_path) -> None:
    page = opened(server.address)
    small = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(small).save(tmp_path / "small.png")
    upload(page, tmp_path / "small.png")
    page.wait_for_selector("#status :text('Done')")
    tensor, choice = torch.from_numpy(small).float()[None, None] / 255, Choice(0, (12, 5, 3))
    arguments = {"generator": torch_generator(0, "grow", 1), **choice.options(server.model)}
    grown = server.model.grow()(tensor, level=1, output_type="latent", **arguments).images
    np.testing.assert_array_equal(pixels(page), to_uint8(grown)[0])
    assert "Your picture grows from 8 x 8 pixels" in status(page)
    last = pixels(page)
    (tmp_path / "note.txt").write_text("hello")
    upload(page, tmp_path / "note.txt")
    page.wait_for_selector(".status.error")
    assert status(page) == "The file note.txt is not an image: choose a picture, such as a PNG or JPEG file."
    np.testing.assert_array_equal(pixels(page), last)  # the picture stays
    Image.new("RGB", (40, 30), "red").save(tmp_path / "colour.jpg")
    upload(page, tmp_path / "colour.jpg")
    page.wait_for_selector("#status :text('made grey'):text('Done')")
    assert "resized from 30 x 40 (height x width) to 8 x 8" in status(page)


def test_class_and_guidance(server_with_classes, opened) -> None:
    page = opened(f"{server_with_classes.address}?seed=2&steps=3&class=dog&guidance=2")
    finish(page, 9)
    assert page.locator("#class input").input_value() == "dog"
    assert "18 network calls" in page.locator("#ruler").inner_text()
    np.testing.assert_array_equal(pixels(page), expected(server_with_classes, Choice(2, (3, 3, 3), 1, 2.0)))
    page.click("#class input")
    page.click("[role=option]:has-text('owl')")
    click_and_finish(page, "#draw")
    assert page.url.endswith("class=owl&guidance=2")
    np.testing.assert_array_equal(pixels(page), expected(server_with_classes, Choice(2, (3, 3, 3), 2, 2.0)))


def test_two_visitors_have_a_picture_each(server, opened) -> None:
    first, second = opened(f"{server.address}?seed=5&steps=4"), opened(f"{server.address}?seed=6&steps=4")
    for page, seed in ((first, 5), (second, 6)):
        finish(page, 12)
        np.testing.assert_array_equal(pixels(page), expected(server, Choice(seed, (4, 4, 4))))


def test_the_server_asks_no_other_host(server) -> None:
    asked = set(server.hosts.read_text().split()) if server.hosts.exists() else set()
    assert asked <= {*LOCAL, "0.0.0.0", "None"}


def test_ctrl_c_ends_it_with_one_line(browser, tmp_path) -> None:
    with served(tmp_path) as running:
        page = browser.new_page()
        try:
            page.goto(f"{running.address}?seed=1&steps=100")
            page.wait_for_selector(".stage[data-ending='']:not([data-step='0'])")  # in the middle of a picture
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(60) == 0
        finally:
            page.close()
        assert running.process.stdout.read().strip() == "The page is closed."
        assert (tmp_path / "errors").read_text() == ""
