"""What happens at a click, as plain functions: each gives what the page shows next, and never an exception.

A session is one open page of one visitor; its Stop ends what it draws, and no other's.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..commands.errors import RunFailed
from ..data.sizes import size_text
from .actions import code_of, draw, grow, growing_code, redraw, redrawing_code
from .choice import Choice, make_choice, to_query
from .frames import Frame
from .given import read_given
from .model import DemoModel
from .view import progress_text, ruler_html, stage_html, status_html

NEW_SEEDS = 1_000_000
"""New seeds are below it, so that they are short to read and to type."""

FAILED = "Something went wrong that the page did not foresee; the terminal that runs it says what."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fields:
    """What stands in the page's fields.

    Attributes
    ----------
    seed : float, optional
        None where it is empty.
    steps : sequence of float
        Of every level, coarsest first, as they are on the page.
    class_ : str, optional
    guidance : float
    """

    seed: float | None
    steps: Sequence[float]
    class_: str | None = None
    guidance: float = 1.0

    def choice(self, model: DemoModel) -> Choice:
        """Checked; a ValueError of one sentence for what cannot be."""
        return make_choice(model, self.seed, self.steps[::-1], self.class_, self.guidance)


@dataclass(frozen=True)
class Update:
    """What the page shows next; None leaves a part as it is.

    Attributes
    ----------
    status : str
        A line in HTML.
    stage : str, optional
        The levels in HTML.
    frame : Frame, optional
        What the stage shows.
    address, code : str, optional
        Of the picture that is being drawn.
    """

    status: str
    stage: str | None = None
    frame: Frame | None = None
    address: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Started:
    """What an event began.

    Attributes
    ----------
    choice : Choice
    frames : iterator of Frame
    text : str
        What it is, in words.
    code : str
        That gives the same picture.
    address : str, optional
    """

    choice: Choice
    frames: Iterator[Frame]
    text: str
    code: str
    address: str | None = None


class Events:
    """The page's events, for one model.

    Parameters
    ----------
    model : DemoModel
    """

    def __init__(self, model: DemoModel) -> None:
        self.model = model
        self._stops: dict[str, threading.Event] = {}

    def draw(self, session: str, fields: Fields) -> Iterator[Update]:
        """A picture from noise."""

        def start(stop: threading.Event) -> Started:
            choice = fields.choice(self.model)
            frames, address = draw(self.model, choice, stop), to_query(choice, self.model)
            return Started(choice, frames, f"Seed {choice.seed}.", code_of(self.model, choice), address)

        return self._updates(session, start)

    def redraw(
        self, session: str, fields: Fields, finished: Frame | None, before: str, level: int, seed: int
    ) -> Iterator[Update]:
        """Keep a level of a finished picture, whose code is `before`; `seed` is of the new noise."""

        def start(stop: threading.Event) -> Started:
            choice = fields.choice(self.model)
            if finished is None or finished.image is None or not 0 < level < len(self.model.sizes):
                raise ValueError("There is no finished picture of which something could be kept: draw one first.")
            if not self.model.edits:
                raise ValueError("This model cannot redraw pictures: it takes an SSDScheduler with several levels.")
            text = f"Redrawn with seed {seed}; {size_text(self.model.sizes[level])} pixels were kept."
            code = redrawing_code(self.model, choice, before, level, seed)
            return Started(choice, redraw(self.model, choice, finished, level, seed, stop), text, code)

        return self._updates(session, start)

    def grow(self, session: str, fields: Fields, file: str | None) -> Iterator[Update]:
        """Let an uploaded picture grow."""

        def start(stop: threading.Event) -> Started:
            choice = fields.choice(self.model)
            if file is None:
                raise ValueError("Nothing was uploaded: choose a picture, such as a PNG or JPEG file.")
            given = read_given(self.model, file)
            size = size_text(self.model.sizes[given.level])
            text = f"Your picture grows from {size} pixels, with seed {choice.seed}. {given.note}"
            code = growing_code(self.model, choice, Path(file).name, given.level)
            return Started(choice, grow(self.model, choice, given.small, given.level, stop), text.strip(), code)

        return self._updates(session, start)

    def stop(self, session: str) -> None:
        """End what the session draws, after the step that is computed now."""
        stop = self._stops.get(session)
        if stop is not None:
            stop.set()

    def costs(self, fields: Fields, finished: Frame | None) -> tuple[str, str | None]:
        """The ruler of the fields before anything is drawn; and the stage with the new costs of its clicks."""
        try:
            choice = replace(fields, seed=0).choice(self.model)
        except ValueError as error:
            return status_html(sentence(error), "error"), None
        return ruler_html(choice.costs(self.model)), None if finished is None else self._stage(finished, choice)

    def _stage(self, frame: Frame, choice: Choice) -> str:
        model = self.model
        finished = model.edits and frame.ending == "done"
        levels = range(len(model.sizes)) if finished else ()
        return stage_html(frame, model.sizes, [choice.costs(model, level) for level in levels])

    def _updates(self, session: str, start: Callable[[threading.Event], Started]) -> Iterator[Update]:
        stop = self._stops[session] = threading.Event()
        try:
            started = start(stop)
            named = {"address": started.address, "code": started.code}
            for number, frame in enumerate(started.frames):
                status = status_html(f"{progress_text(frame, self.model.sizes)} {started.text}")
                yield Update(status, self._stage(frame, started.choice), frame, **(named if number == 0 else {}))
        except (ValueError, RunFailed) as error:
            yield Update(status_html(sentence(error), "error"))
        except Exception:
            logger.exception("An event of the page failed.")
            yield Update(status_html(FAILED, "error"))
        finally:
            if self._stops.get(session) is stop:
                del self._stops[session]


def new_seed() -> int:
    """A seed that nobody has chosen."""
    return secrets.randbelow(NEW_SEEDS)


def sentence(error: Exception) -> str:
    """What an exception says, in one line."""
    return " ".join(str(error).split())


def fields_of(values: Sequence[Any]) -> Fields:
    """From the values of the page's components, in their order: seed, guidance, class, steps coarsest first."""
    seed, guidance, class_, *steps = values
    return Fields(seed, steps, class_, guidance)
