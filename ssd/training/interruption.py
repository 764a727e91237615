"""Stopping politely: SIGTERM, SIGUSR1 (a scheduler's warning) and Ctrl-C ask the run to save and end."""

from __future__ import annotations

import signal
from types import FrameType


class StopRequest:
    """Becomes true when one of the signals arrives; the loop looks at it after every step.

    The second signal finds the earlier handlers again: pressing Ctrl-C twice stops at once. Use as a context manager:
    on leaving, the earlier handlers are back.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self) -> None:
        self.received: str | None = None

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.received is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()
