"""Exceptions that commands print as one line with an exit code, and helpers for error messages."""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator


class UserError(ValueError):
    """Error of the user, with a one-line message that names the wrong value and a right one.

    The commands print the line and exit with code 2; from Python it is an ordinary `ValueError`.
    """


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """Stop of a run that can be resumed; commands exit with code 75, EX_TEMPFAIL of sysexits.h."""


@contextlib.contextmanager
def prefix_errors(prefix: str) -> Iterator[None]:
    """Prefix a `UserError` of the block, such as with the name of the file or setting that a wrong value comes from."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{prefix}: {error}") from error


def closest(name: object, choices: Iterable[str]) -> str:
    """Return the choices most similar to `name`, or all if none is similar, quoted for an error message."""
    choices = list(choices)
    near = difflib.get_close_matches(str(name), choices, cutoff=0.5) or choices
    return ", ".join(repr(choice) for choice in near)


def plain_reason(error: Exception) -> str:
    """Return the first line of an error, without node names of TensorFlow and error numbers of Python."""
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    noise = r"\[Errno \d+\] |\{\{.*?\}\}|\[Op:.*?\]|\bname:.*$|StringToNumberOp could not correctly convert string: "
    return re.sub(noise, "", message.splitlines()[0]).strip(" .;")


def is_full_disk(error: Exception) -> bool:
    """Return True if a disk, a user's quota or the largest file size (`ulimit -f`) is reached.

    Python and TensorFlow report each in the same words.
    """
    return any(os.strerror(each) in str(error) for each in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def write_failure(error: Exception) -> str:
    """Return the reason why a write failed, with advice where the disk is full."""
    reason = getattr(error, "strerror", None) or plain_reason(error)
    if os.strerror(errno.EFBIG) in str(error):
        return f"{reason}; raise the limit of `ulimit -f`, and start the same command again"
    return f"{reason}; make room, and start the same command again" if is_full_disk(error) else reason
