"""Stopping politely: SIGTERM, SIGUSR1 (a scheduler's warning), Ctrl-C and the clock ask the run to save and end."""

from __future__ import annotations

import signal
import time
from types import FrameType


class StopRequest:
    """Becomes true when one of the signals arrives or the time is up; the loop looks at it after every step.

    The second signal finds the earlier handlers again: pressing Ctrl-C twice stops at once. Use as a context manager:
    on leaving, the earlier handlers are back.

    Parameters
    ----------
    minutes : float, optional
        How long it takes until the time is up, counted from entering.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self, minutes: float | None = None) -> None:
        self.received: str | None = None
        self._seconds = None if minutes is None else 60 * minutes

    def __enter__(self) -> StopRequest:
        self._start = time.perf_counter()
        self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        if self.received is None and self._seconds is not None and time.perf_counter() - self._start >= self._seconds:
            self.received = "--max_minutes"
        return self.received is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()
