"""A call of a pipeline as frames: what is known at every level after a step, at most ten of them a second.

The pipeline runs in a thread of its own, and its callback hands the states out. Whoever takes the frames may stop it by
an event, which ends the call after the step that is being computed, by the pipeline's own `_interrupt`.

Shape letters: C channels, h w the size of a level.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ..commands.errors import BrokenModel
from ..pipelines.components import check_scale_space
from ..pipelines.denoising_pipeline import DenoisingPipeline
from ..process.consistency import SmallPicture
from .model import DemoModel

SECONDS_PER_FRAME = 0.1
MOST_FRAMES = 60
"""Of one picture: with more steps some are not shown, so that looking takes no longer than six seconds."""


@dataclass(frozen=True)
class Frame:
    """What is shown.

    Attributes
    ----------
    states, pictures : tuple of torch.Tensor or None
        Of every level, finest first: the last x_s, (C, h, w); and the prediction of the clean image, of a finished
        chain the picture itself at that size. About [-1, 1], float32, on the CPU; None where the chain was not yet.
    step, steps : int
        How many steps are done, of how many.
    level : int
        Where the chain is.
    ending : {"", "done", "stopped"}
    kept : int, optional
        The level whose picture was given.
    """

    states: tuple[torch.Tensor | None, ...]
    pictures: tuple[torch.Tensor | None, ...]
    step: int = 0
    steps: int = 0
    level: int = 0
    ending: Literal["", "done", "stopped"] = ""
    kept: int | None = None

    @property
    def image(self) -> torch.Tensor | None:
        """The finished image, (1, C, H, W) in [0, 1]; None before the end."""
        finest = self.pictures[0]
        return None if self.ending != "done" or finest is None else (finest[None] / 2 + 0.5).clamp(0, 1)


def empty_frame(model: DemoModel) -> Frame:
    """Nothing yet."""
    nothing = (None,) * len(model.sizes)
    return Frame(nothing, nothing, level=len(nothing) - 1)


def frames_of(
    model: DemoModel,
    pipeline: DenoisingPipeline,
    arguments: dict[str, Any],
    start: Frame,
    stop: threading.Event,
) -> Iterator[Frame]:
    """Frames of one call of a pipeline that draws one image, beginning with `start`.

    Whatever the network is doing, the last frame comes within a tenth of a second after `stop` is set.

    Raises
    ------
    BrokenModel
        When the network gave NaN or infinity.
    Exception
        What the pipeline raises for its arguments.
    """
    shown: queue.SimpleQueue[Frame | Exception] = queue.SimpleQueue()
    recorder = _Recorder(model, start, stop, shown.put)
    threading.Thread(target=_run, args=(model, pipeline, arguments, recorder), daemon=True).start()
    frame = start
    try:
        yield frame
        while not frame.ending:
            try:
                item = shown.get(timeout=SECONDS_PER_FRAME)
            except queue.Empty:
                if stop.is_set():
                    frame = replace(frame, ending="stopped")
                    yield frame
                continue
            if isinstance(item, Exception):
                raise item
            frame = item
            yield frame
    finally:
        stop.set()  # nobody looks any more


def _run(model: DemoModel, pipeline: DenoisingPipeline, arguments: dict[str, Any], recorder: _Recorder) -> None:
    """The whole call; whatever goes wrong is handed out as well."""
    try:
        with model.lock:
            if recorder.stop.is_set():
                return recorder.end(None)
            pipeline.set_progress_bar_config(disable=True)
            (image,) = pipeline(
                **arguments,
                output_type="latent",
                return_dict=False,
                callback_on_step_end=recorder,
                callback_on_step_end_tensor_inputs=("latents", "pred_original_sample"),
            )
            fault = pipeline.first_fault()
            if fault is not None:
                raise BrokenModel(f"The network gave NaN or infinity at timestep {fault[1]}: its weights are broken.")
            recorder.end(None if pipeline.interrupt else image)
    except Exception as error:  # raised again where the frames are taken
        recorder.put(error)
    return None


class _Recorder:
    """The pipeline's callback."""

    def __init__(
        self,
        model: DemoModel,
        start: Frame,
        stop: threading.Event,
        put: Callable[[Frame | Exception], None],
    ) -> None:
        self.stop, self.put = stop, put
        self._model, self._frame = model, start
        self._next = time.monotonic()

    def __call__(self, pipeline: Any, index: int, timestep: int, tensors: dict[str, torch.Tensor]) -> dict:
        steps, level = pipeline.num_timesteps, self._model.process.level(pipeline.scheduler.previous_timestep(timestep))
        grown = level != self._frame.level
        state, picture = (tensors[name][0].float().cpu() for name in ("latents", "pred_original_sample"))
        self._frame = replace(
            self._frame,
            states=_with(self._frame.states, level, state),
            pictures=_with(self._frame.pictures, level, picture),
            step=index + 1,
            steps=steps,
            level=level,
        )
        if index % -(-steps // MOST_FRAMES) == 0 or grown:
            self._show(self._frame)
        if self.stop.is_set():
            pipeline._interrupt = True
        return {}

    def end(self, image: torch.Tensor | None) -> None:
        """Hand out the last frame: of a finished image the picture at every size, else the last state."""
        if image is None:
            self.put(replace(self._frame, ending="stopped"))
            return
        finished, predictions = image.float().cpu().clamp(-1, 1), self._frame.pictures
        pictures = level_pictures(self._model, finished) if self._model.edits else (finished[0], *predictions[1:])
        self._show(replace(self._frame, pictures=pictures, ending="done"))

    def _show(self, frame: Frame) -> None:
        self.stop.wait(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + SECONDS_PER_FRAME
        self.put(frame)


def level_pictures(model: DemoModel, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What an image, (1, C, H, W) on the CPU, is at every level, finest first: (C, h, w) each."""
    process = check_scale_space(model.pipe.scheduler, "The page").process
    return (image[0], *(SmallPicture.of(process, image, level).picture[0] for level in range(1, len(model.sizes))))


def _with(values: tuple[torch.Tensor | None, ...], place: int, value: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return (*values[:place], value, *values[place + 1 :])
