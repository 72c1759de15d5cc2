"""Log of the package on stderr: its format, and its level where an application has set none."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from resnet_tf.core import progress_line
from resnet_tf.core.text import printable

_LOGGER = logging.getLogger("resnet_tf")


class LineFormatter(logging.Formatter):
    """Formats a record as its message, with escapes for control characters, which names in data may contain."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name is Python's)
        """Return the message of a record."""
        return "\n".join(map(printable, record.message.split("\n")))


class _Handler(logging.StreamHandler):
    """Writes messages on lines of their own, also while the line of a progress is shown on a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        progress_line.erase()
        super().emit(record)


def stderr_handler() -> logging.Handler:
    """Return a handler that writes messages to stderr."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(LineFormatter())
    return handler


@contextlib.contextmanager
def shown_log() -> Iterator[None]:
    """Show the messages of the package within the block, as its commands do.

    A level that was set for the logger `resnet_tf` stays, such as `logging.WARNING`, which leaves out the description
    of a run. Handlers that were set are used; without one, messages are written to stderr.
    """
    if _LOGGER.level != logging.NOTSET:
        yield
        return
    handler = None if _LOGGER.hasHandlers() else stderr_handler()
    _LOGGER.setLevel(logging.INFO)
    if handler:
        _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        _LOGGER.setLevel(logging.NOTSET)
        if handler:
            _LOGGER.removeHandler(handler)


@contextlib.contextmanager
def only_errors(name: str) -> Iterator[None]:
    """Suppress the messages of a logger, and of those below it, that are no errors."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
