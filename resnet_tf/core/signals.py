"""Stop signals: noted for an orderly stop, or raised so that a command cleans up."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from resnet_tf.core.errors import Interrupted

# Handlers that end a process. Those of `interrupted_by` would not, as long as native code runs.
_ENDING: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


class StopRequested(Exception):  # noqa: N818 (nothing went wrong)
    """A stop signal was received; the message is its name."""


class StopSignals:
    """Context in which SIGTERM and SIGINT set `received`; a second signal ends the process at once.

    Python handles signals in the main thread only; in other threads the context has no effect.
    """

    WATCHED = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.WATCHED}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise `StopRequested` if a signal was received."""
        if self.received:
            raise StopRequested(self.received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        for each, handler in _ENDING.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def interrupted_by(signals: Sequence[signal.Signals], message: str) -> Iterator[Callable[[], None]]:
    """Raise `Interrupted` with a message if the process receives a signal in the block, which then cleans up.

    A second signal ends the process at once. Python handles signals in the main thread only, after native code has
    returned; in other threads the context has no effect.

    Yields:
        A function for the block to call between its steps: Python prints and drops an exception that a signal raises
        while a finalizer runs, and the function raises it again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received = ""

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = signal.Signals(number).name
        restore()
        check()

    def check() -> None:
        if received:
            raise KeyboardInterrupt  # no `Exception`, which libraries catch

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield check
    except KeyboardInterrupt:
        if not received:
            raise
        raise Interrupted(f"{received}: {message}") from None
    finally:
        restore()


def clean_up_on_sigterm(message: str) -> contextlib.AbstractContextManager[Callable[[], None]]:
    """Raise `Interrupted` with a message if the process receives SIGTERM in the block; see `interrupted_by`."""
    return interrupted_by((signal.SIGTERM,), message)


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let the block clean up if the process receives SIGTERM, which then ends it as without this context.

    A second signal ends the process at once. Python handles signals in the main thread only; in other threads the
    context has no effect.
    """
    try:
        with clean_up_on_sigterm("stopped"):
            yield
    except Interrupted:
        signal.raise_signal(signal.SIGTERM)


def restore_signal_handlers() -> None:
    """Install Python's handlers again, which native code replaced by its own."""
    if threading.current_thread() is threading.main_thread():
        for number in StopSignals.WATCHED:
            handler = signal.getsignal(number)
            if handler is not None:  # not installed by Python
                signal.signal(number, handler)
