"""Ends of commands by a signal, with the cleanup of any other error."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from resnet_tf.core.errors import Interrupted


@contextlib.contextmanager
def clean_up_on_sigterm(message: str) -> Iterator[None]:
    """Raise `Interrupted` with a message if the process receives SIGTERM in the block, which then cleans up.

    A second signal ends the process at once. Python handles signals in the main thread only; in other threads the
    context has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = True
        signal.signal(signal.SIGTERM, before)
        raise KeyboardInterrupt  # no `Exception`, which libraries catch

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        if not received:
            raise
        raise Interrupted(f"SIGTERM: {message}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
