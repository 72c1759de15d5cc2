"""Messages that TensorFlow's C++ code writes to the file descriptor of stderr, past Python and its log levels."""

import contextlib
import functools
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

_UNSUPPORTED_TYPE = b"oneDNN supports "
# Of two threads that replace the file descriptor of stderr, the second one would save the file of the first.
_stderr_lock = threading.RLock()


@contextlib.contextmanager
def filtered(is_shown: Callable[[bytes], bool]) -> Iterator[None]:
    """Hold back what the process writes to stderr within the block, and write the lines that are shown at its end.

    After an exception, all lines are written. Of several threads, one is in such a block at a time.

    Args:
        is_shown: returns True for lines to write.
    """
    with _stderr_lock:
        yield from _filtered(is_shown)


def _filtered(is_shown: Callable[[bytes], bool]) -> Iterator[None]:
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # closed: nothing is written
        yield
        return
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            is_shown = bool
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            log.seek(0)
            os.write(saved, b"".join(line for line in log if is_shown(line)))
            os.close(saved)


@functools.cache
def silence_unsupported_types() -> None:
    """Let oneDNN state now, unseen, that a CPU lacks its kernels for integers; TensorFlow states it once in a process.

    Transposition of pixels causes the message, an error by its level, although TensorFlow's own kernels compute the
    same. Call this before the first transposition, and after the devices are set up.
    """
    import tensorflow as tf  # here, as commands start without TensorFlow

    with filtered(lambda line: _UNSUPPORTED_TYPE not in line), tf.init_scope(), tf.device("CPU:0"):
        tf.transpose(tf.zeros([1, 2], tf.uint8))
