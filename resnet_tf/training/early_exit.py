"""Early exits: stop signals, and call lengths that let a signal be answered soon."""

import signal
import threading
from types import FrameType
from typing import Any


class StopRequested(Exception):  # noqa: N818 (nothing went wrong)
    """A stop signal was received; the message is its name."""


class StopSignals:
    """Context in which SIGTERM and SIGINT set `received`; a second signal ends the process at once.

    Python handles signals in the main thread only; in other threads the context has no effect.
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
        """Raise `StopRequested` if a signal was received."""
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
    """Number of steps per call, chosen by duration, so that a signal is answered soon.

    Args:
        most: largest number of steps.
        seconds: target duration of a call.
    """

    def __init__(self, most: int, seconds: float = 2.0):
        self._most, self._seconds = most, seconds
        self._calls = 0
        self._step_seconds = seconds

    @property
    def count(self) -> int:
        """Steps of the next call; the first call, which compiles, has one."""
        return max(1, min(self._most, int(self._seconds / self._step_seconds)))

    def note(self, count: int, seconds: float) -> None:
        """Record the duration of a call of `count` steps."""
        self._calls += 1
        if self._calls > 1:
            self._step_seconds = max(seconds / count, 1e-6)
