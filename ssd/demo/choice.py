"""What a visitor chose, and how it stands in the page's address: ?seed=7&steps=3,5,12&class=cat&guidance=2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from .chains import LevelCost, chain_of, level_costs, step_limits
from .model import DemoModel

MOST_SEED = 2**53 - 1
"""The largest whole number that a browser can hold."""

MOST_GUIDANCE = 10.0
SHOWN = 20
"""Characters of a wrong value that a message repeats."""


@dataclass(frozen=True)
class Choice:
    """All that decides over a picture drawn from noise.

    Attributes
    ----------
    seed : int
        In 0..MOST_SEED.
    steps : tuple of int
        Steps per level, finest first.
    class_ : int, optional
        The number of a class; None for an unconditional model.
    guidance : float
        1 is off.
    """

    seed: int
    steps: tuple[int, ...]
    class_: int | None = None
    guidance: float = 1.0

    @property
    def guided(self) -> bool:
        """Whether every step calls the network twice."""
        return self.class_ is not None and self.guidance != 1.0

    def chain(self, model: DemoModel) -> list[int]:
        """The timesteps, descending."""
        return chain_of(model.pipe.scheduler, self.steps)

    def costs(self, model: DemoModel, first: int | None = None) -> list[LevelCost]:
        """What it costs, level by level; with `first` the part of the chain from that level's last step on."""
        process, chain = model.process, self.chain(model)
        if first is not None:
            last = [t for t in chain if process.level(t) == first][-1]
            chain = [t for t in chain if t <= last]
        return level_costs(model.pipe.unet, process, chain, self.guided)

    def options(self, model: DemoModel) -> dict[str, Any]:
        """Arguments that all pipelines share."""
        classes = {} if self.class_ is None else {"class_labels": [self.class_], "guidance_scale": self.guidance}
        return {"timesteps": self.chain(model), **classes}


def usual_choice(model: DemoModel, seed: int = 0) -> Choice:
    """With the pipeline's own steps, of the first class if there are any."""
    return Choice(seed, tuple(model.usual_steps), 0 if model.class_names else None)


def to_query(choice: Choice, model: DemoModel) -> str:
    """The address's part from the question mark on; steps are written as they are taken, coarsest first."""
    entries = {"seed": str(choice.seed), "steps": ",".join(str(number) for number in reversed(choice.steps))}
    if choice.class_ is not None:
        entries |= {"class": model.class_names[choice.class_], "guidance": f"{choice.guidance:g}"}
    return "?" + urlencode(entries, safe=",")


def from_query(query: Mapping[str, str], model: DemoModel) -> tuple[Choice, list[str]]:
    """The choice in an address, and a sentence for everything in it that this model cannot take."""
    usual, notes = usual_choice(model), []
    readers = {"seed": _seed, "steps": _steps, "class": _class, "guidance": _guidance}
    values: dict[str, Any] = {}
    for name, read in readers.items():
        if name in query and (name in ("seed", "steps") or model.class_names):
            try:
                values[name.replace("class", "class_")] = read(query[name], model)
            except ValueError as error:
                notes.append(f"The address has {name}={query[name][:SHOWN]!r}. {error}")
    return Choice(**(vars(usual) | values)), notes


def make_choice(model: DemoModel, seed: float | None, steps: Sequence[float], class_: Any, guidance: float) -> Choice:
    """The choice in the page's fields, of which none may be empty.

    Raises
    ------
    ValueError
        For a value that cannot be taken, in one sentence.
    """
    if seed is None:
        raise ValueError("The seed is empty: give a whole number.")
    chosen = None if not model.class_names else _class(str(class_), model)
    counts = tuple(int(number) for number in steps)
    chain_of(model.pipe.scheduler, counts)
    return Choice(_seed(f"{seed:.17g}", model), counts, chosen, _guidance(str(guidance), model))


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_SEED))


def _seed(text: str, model: DemoModel) -> int:
    if not _is_whole(text) or int(text) > MOST_SEED:
        raise ValueError(f"The seed must be a whole number in 0..{MOST_SEED}.")
    return int(text)


def _steps(text: str, model: DemoModel) -> tuple[int, ...]:
    limits, parts = step_limits(model.process), text.split(",")
    parts = parts * len(limits) if len(parts) == 1 else parts[::-1]
    fits = len(parts) == len(limits) and all(map(_is_whole, parts))
    if not fits or any(not low <= int(part) <= high for part, (low, high) in zip(parts, limits)):
        ranges = ",".join(f"{low}..{high}" for low, high in reversed(limits))
        raise ValueError(f"The steps must be one number for all levels, or one per level, coarsest first, in {ranges}.")
    return tuple(int(part) for part in parts)


def _class(text: str, model: DemoModel) -> int:
    if text in model.class_names:
        return model.class_names.index(text)
    if _is_whole(text) and int(text) < len(model.class_names):
        return int(text)
    raise ValueError(f"The model has no such class: it has {len(model.class_names)}, such as {model.class_names[0]!r}.")


def _guidance(text: str, model: DemoModel) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MOST_GUIDANCE:
        raise ValueError(f"Guidance must be a number in 0..{MOST_GUIDANCE:g}.")
    return value
