"""Waiting for other processes: with a limit, a message in the log, and an end by a signal."""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from resnet_tf.core.errors import Interrupted, UserError
from resnet_tf.core.signals import StopSignals

logger = logging.getLogger(__name__)

POLL = 0.2  # seconds between two looks at what is waited for
_PATIENCE, _REPEAT = 2.0, 60.0  # seconds until the first message, and between equal messages

# Ends a process in native code, which answers no signals: at the end of its time, and by a signal to both of them. Its
# standard input ends with that process.
_WATCHDOG = """
import os, select, signal, sys
process, seconds, message = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]

def end(text):
    if os.getppid() == process:
        print(text, file=sys.stderr, flush=True)
        os.kill(process, signal.SIGKILL)
    os._exit(0)

for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: end(signal.Signals(number).name))
if not select.select([sys.stdin], [], [], seconds)[0]:
    end(message)
"""


def wait(attempt: Callable[[], str], *, seconds: float) -> None:
    """Call a function until it returns an empty text, the end of the wait.

    Args:
        attempt: function that takes about `POLL` seconds at most, and returns what is missing, such as `worker 1 at
            host:2222`. It is called again after `POLL` seconds.
        seconds: limit of the wait, `runtime.wait_seconds`.

    Raises:
        UserError: if something is still missing at the end.
        Interrupted: after SIGTERM or SIGINT.
    """
    start = time.monotonic()
    logged, next_message = "", start + _PATIENCE
    with StopSignals() as signals:
        while missing := attempt():
            now = time.monotonic()
            if signals.received:
                raise Interrupted(f"{signals.received}: stopped while waiting for {missing}")
            if now - start > seconds:
                raise UserError(f"{missing} did not answer within {seconds:g} seconds (runtime.wait_seconds)")
            if now > next_message or (logged and missing != logged):
                logger.info("waiting for %s, at most %g seconds (runtime.wait_seconds)", missing, seconds)
                logged, next_message = missing, now + _REPEAT
            time.sleep(POLL)


@contextlib.contextmanager
def killed_after(seconds: float, message: str) -> Iterator[None]:
    """End the process with a message on stderr if the block takes longer.

    For calls into native code that wait without a limit, and without a chance for Python to run.
    """
    arguments = [str(os.getpid()), str(seconds), message]
    with subprocess.Popen([sys.executable, "-I", "-c", _WATCHDOG, *arguments], stdin=subprocess.PIPE):
        yield  # the end of the context closes its input and waits for its end
