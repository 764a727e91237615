"""What the page draws: frames whose last is the pipeline's own picture, and which stop."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from ssd.commands.errors import BrokenModel
from ssd.demo import frames
from ssd.demo.actions import code_of, draw, grow, growing_code, redraw, redrawing_code
from ssd.demo.choice import Choice, usual_choice
from ssd.demo.frames import Frame, empty_frame
from ssd.demo.model import DemoModel
from ssd.process.consistency import SmallPicture
from ssd.seeding import torch_generator

from .conftest import tiny_pipeline

STEPS = (4, 3, 2)


def drawn(model: DemoModel, choice: Choice | None = None) -> list[Frame]:
    return list(draw(model, choice or Choice(5, STEPS), threading.Event()))


def run(code: str) -> torch.Tensor:
    """What a block of Python of the page draws."""
    namespace: dict = {}
    exec(code, namespace)
    return namespace["images"]


@pytest.fixture
def saved(model, tmp_path) -> DemoModel:
    """The model by the name of its folder, so that the page's code finds it."""
    model.pipe.save_pretrained(tmp_path / "m")
    return DemoModel(str(tmp_path / "m"), model.pipe)


def test_the_last_frame_is_the_pipelines_picture(model) -> None:
    *_, last = drawn(model, usual_choice(model, seed=5))
    assert last.ending == "done"
    generator = torch_generator(5, "image", 0)
    assert torch.equal(last.image, model.pipe(generator=generator, output_type="pt").images)


def test_guidance_and_classes_are_the_pipelines(classes) -> None:
    choice = Choice(1, STEPS, 2, 3.0)
    *_, last = drawn(classes, choice)
    options = {"class_labels": ["owl"], "guidance_scale": 3.0, "timesteps": choice.chain(classes)}
    expected = classes.pipe(generator=torch_generator(1, "image", 0), output_type="pt", **options).images
    assert torch.equal(last.image, expected)


def test_frames_go_from_coarse_to_fine(model) -> None:
    first, *middle, last = drawn(model)
    assert first == empty_frame(model)
    assert [frame.step for frame in middle] == list(range(1, 10))
    assert [frame.level for frame in middle] == [2, 1, 1, 1, 0, 0, 0, 0, 0]  # where each step arrives
    assert all(not frame.ending and frame.steps == 9 and frame.image is None for frame in middle)
    assert [state.shape[-1] for state in last.states] == [16, 8, 4]
    process = model.pipe.scheduler.process
    for level in (1, 2):  # the finished picture at every size
        small = SmallPicture.of(process, last.image * 2 - 1, level).picture[0]
        torch.testing.assert_close(last.pictures[level], small, rtol=0, atol=1e-6)


def test_with_many_steps_some_are_not_shown(model, monkeypatch) -> None:
    monkeypatch.setattr(frames, "MOST_FRAMES", 3)
    shown = [frame.step for frame in drawn(model)[1:-1]]
    assert shown == [1, 2, 4, 5, 7]  # every third, and where the level changes


def test_at_most_so_many_frames_a_second(model, monkeypatch) -> None:
    monkeypatch.setattr(frames, "SECONDS_PER_FRAME", 0.05)
    begin = time.monotonic()
    number = len(drawn(model, Choice(0, (2, 1, 2))))
    assert number == 7
    assert time.monotonic() - begin >= 0.05 * (number - 2)  # the first is there before, and none waits for a next


def test_stop_ends_the_chain_after_a_step(model) -> None:
    stop, calls = threading.Event(), []
    model.pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    seen = []
    for frame in draw(model, Choice(0, (90, 3, 2)), stop):
        seen.append(frame)
        if frame.step >= 4:
            stop.set()
    assert seen[-1].ending == "stopped"
    assert seen[-1].image is None
    with model.lock:  # the call has ended
        assert len(calls) < 95
    assert drawn(model)[-1].ending == "done"  # and the next picture is whole


def test_stop_does_not_wait_for_a_slow_network(model) -> None:
    stop, goes_on = threading.Event(), threading.Event()
    model.pipe.unet.register_forward_hook(lambda *_: goes_on.wait(60) and None)
    seen = draw(model, Choice(0, STEPS), stop)
    assert next(seen).step == 0
    stop.set()
    assert next(seen).ending == "stopped"  # while the network computes
    assert model.lock.locked()
    goes_on.set()
    assert list(seen) == []
    with model.lock:
        assert model.pipe.interrupt


def test_when_nobody_looks_any_more_the_chain_ends(model) -> None:
    stop = threading.Event()
    seen = draw(model, Choice(0, (90, 3, 2)), stop)
    assert next(seen).step == 0
    seen.close()
    assert stop.is_set()
    with model.lock:
        pass


def test_two_pictures_at_once_are_drawn_one_after_the_other(model) -> None:
    expected = {seed: drawn(model, Choice(seed, STEPS))[-1].image for seed in (1, 2)}
    found = {}
    threads = [
        threading.Thread(target=lambda s=seed: found.update({s: drawn(model, Choice(s, STEPS))[-1].image}))
        for seed in expected
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[seed], expected[seed]) for seed in expected)


@pytest.mark.parametrize("level", [1, 2])
def test_redrawing_keeps_the_level(model, level: int) -> None:
    finished = drawn(model)[-1]
    first, *_, last = redraw(model, Choice(5, STEPS), finished, level, 8, threading.Event())
    assert [picture is None for picture in first.pictures] == [place < level for place in range(3)]
    assert first.kept == last.kept == level
    assert [state is None for state in last.states] == [place >= level for place in range(3)]
    assert last.ending == "done"
    assert not torch.equal(last.image, finished.image)
    pipe = model.redraw()
    options = {"level": level, "timesteps": Choice(5, STEPS).chain(model)}
    generator = torch_generator(8, "redraw", level)
    exact = pipe(finished.image, generator=generator, output_type="latent", **options).images
    process = model.pipe.scheduler.process
    kept = SmallPicture.of(process, exact, level).picture[0]
    assert float((kept - finished.pictures[level]).abs().max()) < 1e-3
    assert torch.equal(last.image, (exact / 2 + 0.5).clamp(0, 1))


def test_growing_keeps_the_small_picture(model) -> None:
    small = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    first, *_, last = grow(model, Choice(5, STEPS), small, 1, threading.Event())
    torch.testing.assert_close(first.pictures[1], small[0] * 2 - 1)
    assert first.pictures[0] is first.pictures[2] is None
    expected = model.grow()(
        small,
        level=1,
        generator=torch_generator(5, "grow", 1),
        timesteps=Choice(5, STEPS).chain(model),
        output_type="pt",
    )
    assert torch.equal(last.image, expected.images)


def test_the_code_beside_the_picture_gives_its_pixels(saved) -> None:
    choice = Choice(5, STEPS)
    finished = drawn(saved, choice)[-1]
    code = code_of(saved, choice)
    assert torch.equal(run(code), finished.image)
    for level, seed in ((1, 3), (2, 4)):
        *_, finished = redraw(saved, choice, finished, level, seed, threading.Event())
        code = redrawing_code(saved, choice, code, level, seed)
    assert torch.equal(run(code), finished.image)
    assert "timesteps" not in code_of(saved, usual_choice(saved))
    assert torch.equal(run(code_of(saved, usual_choice(saved))), drawn(saved, usual_choice(saved))[-1].image)


def test_the_code_of_a_picture_that_grew(saved, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((8, 8), 60).save("small.png")
    small = torch.from_numpy(np.array(Image.open("small.png"))).float()[None, None] / 255
    *_, last = grow(saved, Choice(5, STEPS), small, 1, threading.Event())
    found = run(growing_code(saved, Choice(5, STEPS), "small.png", 1))
    torch.testing.assert_close(found, last.image, rtol=0, atol=1e-5)


def test_a_network_that_gives_nan_is_named(model) -> None:
    next(model.pipe.unet.parameters()).data.fill_(float("nan"))
    with pytest.raises(BrokenModel, match="NaN or infinity at timestep 999"):
        drawn(model)
    assert not model.lock.locked()


def test_a_model_of_one_level_is_drawn(monkeypatch) -> None:
    monkeypatch.setattr(frames, "SECONDS_PER_FRAME", 0.01)
    model = DemoModel("runs/x", tiny_pipeline(3, num_levels=1))
    assert not model.edits
    assert drawn(model, Choice(0, (4,)))[-1].image.shape == (1, 3, 16, 16)
