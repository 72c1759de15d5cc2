"""What may end a run early: signals, and steps that are not finite."""

import signal
import threading
from types import FrameType
from typing import Any


class StopRequested(Exception):  # noqa: N818 (nothing went wrong)
    """A signal came; its name."""


class StopSignals:
    """Within it, SIGTERM and SIGINT set `received` instead of ending the process; a second one ends it at once.

    Python hears signals in the main thread only; elsewhere nothing changes.
    """

    _WATCHED = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self._WATCHED}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def check(self) -> None:
        """Raise `StopRequested` if a signal came."""
        if self.received:
            raise StopRequested(self.received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class Pace:
    """How many steps fit into one call, so that a signal is answered soon.

    Args:
        most: an upper limit.
        seconds: what a call may take.
    """

    def __init__(self, most: int, seconds: float = 2.0):
        self._most, self._seconds = most, seconds
        self._calls = 0
        self._step_seconds = seconds

    @property
    def count(self) -> int:
        """Steps for the next call; the first, which compiles, takes one."""
        return max(1, min(self._most, int(self._seconds / self._step_seconds)))

    def note(self, count: int, seconds: float) -> None:
        """A call of `count` steps took that long."""
        self._calls += 1
        if self._calls > 1:
            self._step_seconds = max(seconds / count, 1e-6)
