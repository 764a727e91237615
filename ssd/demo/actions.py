"""What a visitor can do: draw a picture, redraw what is finer than a level of it, let a small picture grow.

Each gives frames (`ssd.demo.frames`), and code that gives the same picture in Python.

Shape letters: C channels, H W full resolution, h w the size of a level.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import torch

from ..seeding import torch_generator
from .choice import Choice
from .frames import Frame, empty_frame, frames_of
from .model import DemoModel


def draw(model: DemoModel, choice: Choice, stop: threading.Event) -> Iterator[Frame]:
    """A picture from noise: image 0 of this seed, as `sample_ssd.py` numbers them."""
    arguments = {"generator": torch_generator(choice.seed, "image", 0), **choice.options(model)}
    return frames_of(model, model.pipe, arguments, empty_frame(model), stop)


def redraw(
    model: DemoModel, choice: Choice, finished: Frame, level: int, seed: int, stop: threading.Event
) -> Iterator[Frame]:
    """Keep what a finished picture is at a level, and draw everything finer anew.

    Of the two ways to go on from a level this is the one that keeps what is seen. The other, its last noisy state with
    new noise from there on, would keep next to nothing of the picture: levels change where noise covers what they
    cannot hold.

    Parameters
    ----------
    model : DemoModel
    choice : Choice
    finished : Frame
        Its `image` is redrawn.
    level : int
        Not the finest, 0.
    seed : int
        Of the new noise.
    stop : threading.Event
    """
    image = finished.image
    assert image is not None, "The page lets only finished pictures be redrawn."
    start = replace(
        finished,
        states=(None,) * len(finished.states),  # of another chain
        pictures=tuple(None if place < level else picture for place, picture in enumerate(finished.pictures)),
        level=level,
        kept=level,
        ending="",
        step=0,
        steps=0,
    )
    options = {"image": image, "level": level, "generator": torch_generator(seed, "redraw", level)}
    return frames_of(model, model.redraw(), options | choice.options(model), start, stop)


def grow(model: DemoModel, choice: Choice, small: torch.Tensor, level: int, stop: threading.Event) -> Iterator[Frame]:
    """Let a small picture, (1, C, h, w) in [0, 1] of the size of a level, grow to the full resolution."""
    empty = empty_frame(model)
    pictures = tuple(small[0] * 2 - 1 if place == level else None for place in range(len(model.sizes)))
    start = replace(empty, pictures=pictures, level=level, kept=level)
    options = {"image": small, "level": level, "generator": torch_generator(choice.seed, "grow", level)}
    return frames_of(model, model.grow(), options | choice.options(model), start, stop)


def code_of(model: DemoModel, choice: Choice) -> str:
    """Lines of Python that draw the picture of a choice from noise."""
    return "\n".join(
        [
            "from ssd import SSDPipeline",
            "from ssd.seeding import torch_generator",
            "",
            f"pipe = SSDPipeline.from_pretrained({model.name!r})",
            _call("pipe", {"generator": _generator(choice.seed, "image", 0), **_options(model, choice)}),
        ]
    )


def redrawing_code(model: DemoModel, choice: Choice, before: str, level: int, seed: int) -> str:
    """The code of a finished picture, and lines that redraw it."""
    lines = [] if "SSDImageToImagePipeline" in before else [_from_pipe("redraw", "SSDImageToImagePipeline")]
    options = {"image": "images", "level": str(level), "generator": _generator(seed, "redraw", level)}
    return "\n".join([before, "", *lines, _call("redraw", options | _options(model, choice))])


def growing_code(model: DemoModel, choice: Choice, name: str, level: int) -> str:
    """Lines of Python that let the picture in a file grow."""
    options = {"image": f"Image.open({name!r})", "level": str(level)}
    options["generator"] = _generator(choice.seed, "grow", level)
    return "\n".join(
        [
            "from PIL import Image",
            "from ssd import SSDPipeline",
            "from ssd.seeding import torch_generator",
            "",
            f"pipe = SSDPipeline.from_pretrained({model.name!r})",
            _from_pipe("grow", "SSDSuperResolutionPipeline"),
            _call("grow", options | _options(model, choice)),
        ]
    )


def _options(model: DemoModel, choice: Choice) -> dict[str, str]:
    """Arguments of the call as code; steps only where the pipeline would take others."""
    steps = {} if list(choice.steps) == model.usual_steps else {"timesteps": str(choice.chain(model))}
    if choice.class_ is None:
        return steps
    return {**steps, "class_labels": f"[{choice.class_}]", "guidance_scale": f"{choice.guidance:g}"}


def _generator(seed: int, purpose: str, number: int) -> str:
    return f'torch_generator({seed}, "{purpose}", {number})'


def _from_pipe(name: str, pipeline: str) -> str:
    return f"from ssd import {pipeline}\n\n{name} = {pipeline}.from_pipe(pipe)"


def _call(name: str, options: dict[str, str]) -> str:
    arguments = "".join(f"    {key}={value},\n" for key, value in options.items())
    return f'images = {name}(\n{arguments}    output_type="pt",\n).images'
