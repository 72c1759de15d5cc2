"""Standard streams of a command: closed ones, readers that go away, and text that the locale cannot encode."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import TextIO

_BROKEN_PIPE = 128 + signal.SIGPIPE  # the exit code that a shell reports for a program that SIGPIPE ends


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Make the standard streams usable within the block, which is a whole command.

    Characters that the encoding of the locale lacks are written as escapes. A stream that was closed, as in `>&-`,
    becomes the null device. If the reader of the output goes away, as in `| head`, the process ends with exit code 141.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        null = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):  # Python flushes both at its end, and would report the error once more
            os.dup2(null, descriptor)
        sys.exit(_BROKEN_PIPE)


def write_or_drop(stream: TextIO, text: str) -> None:
    """Write a report to a stream and flush it; drop the text if the terminal is closed or the disk of a log is full.

    Neither must end the work that is reported, nor change its exit code.

    Raises:
        BrokenPipeError: if the reader went away, see `standard_streams`.
    """
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError:
        return


def _open_closed_streams() -> None:
    """Open each closed stream as the null device; its file descriptor would become that of the next opened file."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:  # Python's value for a closed stream
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
