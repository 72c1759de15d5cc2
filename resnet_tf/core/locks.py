"""Locks between processes and threads, which the kernel releases when the process ends, however it ends."""

import contextlib
import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from resnet_tf.core.bounded import open_regular

# Errors of file systems without locks, such as some network mounts.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}

_ATTEMPTS = 100  # to lock a file that others delete
_HOLDER, _MAX_HOLDER_BYTES = re.compile(rb"(\d{1,18}) ([\w.-]{1,253})\n"), 300

_held: set[int] = set()  # descriptors of the locks of this process


def acquire(path: Path, *, wait: bool, create: bool = True) -> int | None:
    """Lock a file or a directory.

    Args:
        path: the file, no symbolic link, or directory.
        wait: wait for another holder to release the lock.
        create: create the file if it is missing.

    Returns:
        A descriptor for `release`; None on a file system without locks.

    Raises:
        BlockingIOError: if another process or thread holds the lock, and `wait` is False.
        FileNotFoundError: if `path` was deleted, it or its directory is missing.
        OSError: if `path` cannot be opened.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if not os.fstat(descriptor).st_nlink:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    except OSError as error:
        os.close(descriptor)
        if error.errno in _UNSUPPORTED:
            return None
        raise
    except BaseException:
        os.close(descriptor)
        raise
    _held.add(descriptor)
    return descriptor


def release(descriptor: int | None) -> None:
    """Release a lock that `acquire` returned. Delete its file, if necessary, before this call."""
    if descriptor in _held:  # False in a forked child
        _held.discard(descriptor)
        os.close(descriptor)


def _close_inherited() -> None:
    """Close the locks in a forked child, which would hold them after the end of its parent."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_inherited)


class Locked(Exception):  # noqa: N818 (named like BlockingIOError, which it replaces)
    """A lock file is held; the message names the process and the host of its holder."""


@contextlib.contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Hold a lock file within the block, with the process and the host in it, and delete it at the end.

    A file that a killed process left is locked again.

    Yields:
        False on a file system without locks, where other holders are not noticed.

    Raises:
        Locked: if another process or thread holds it.
        OSError: if it cannot be written.
    """
    descriptor = _acquire_file(path)
    try:
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(errors="replace"), 0)
        yield descriptor is not None
    finally:
        try:
            with contextlib.suppress(FileNotFoundError):
                if descriptor is None or os.path.samestat(os.stat(path), os.fstat(descriptor)):
                    path.unlink()
        finally:
            release(descriptor)


def check_free(path: Path) -> None:
    """Check that `hold` could lock a file now, without creating or changing it.

    Raises:
        Locked: if another process or thread holds it.
        OSError: if it cannot be opened.
    """
    try:
        release(acquire(path, wait=False, create=False))
    except BlockingIOError:
        raise Locked(_read_holder(path)) from None
    except FileNotFoundError:
        pass  # nobody holds it


def _acquire_file(path: Path) -> int | None:
    for _ in range(_ATTEMPTS):
        try:
            return acquire(path, wait=False)
        except BlockingIOError:
            raise Locked(_read_holder(path)) from None
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise  # otherwise its holder deleted it between the opening and the lock
    raise Locked("another process")


def _read_holder(path: Path) -> str:
    """Return the process and the host that the holder of a lock file wrote to it, if it can be read."""
    try:
        with open_regular(path) as file:
            found = _HOLDER.fullmatch(file.read(_MAX_HOLDER_BYTES))
    except OSError:
        found = None
    return f"process {int(found[1])} on {found[2].decode()}" if found else "another process"
