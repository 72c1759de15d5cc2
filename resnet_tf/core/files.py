"""Atomic writes of files and directories, SHA-256 manifests, JSON and JSON Lines.

Everything is written to a staging directory beside its destination, brought to the disk, and renamed: a kill or a loss
of power leaves the old content or the new one, never a part of it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from resnet_tf.core.errors import UserError, write_failure

# No number: TensorFlow Serving and the readers of checkpoints and exports ignore directories of this name.
_STAGING_PREFIX = ".resnet_tf-writing-"
_LOCK, _REPLACED = ".lock", ".replaced"  # in a staging directory, beside what is written


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a path of the same name to write to; at the end of the block the file there replaces `path`.

    Missing parent directories are created. Where `path` is a symbolic link, the file that it points to is replaced.
    Where the block fails, nothing changes.
    """
    final = Path(os.path.realpath(path))
    with _staging(final.parent) as staging:
        written = staging / Path(path).name
        yield written
        sync(written)
        os.replace(written, final)
        sync(final.parent)


def write_atomically(path: str | Path, content: str | bytes) -> Path:
    """Write `content` as `path`, see `atomic_file`, and return `path`; text is encoded as UTF-8."""
    with atomic_file(path) as written:
        written.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


@contextlib.contextmanager
def atomic_directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty directory of the same name to write to; at the end of the block it becomes `path`, in one rename.

    Args:
        path: the new directory. Missing parent directories are created.
        replace: allow `path` to exist. As no rename replaces a directory, the old one is moved away just before;
            `remove_abandoned` moves it back after a kill between the two renames.

    Raises:
        OSError: if `path` exists, is not empty and `replace` is False, or cannot be written; nothing changes then.
    """
    with _staging(path.parent) as staging:
        written, old = staging / path.name, staging / _REPLACED / path.name
        written.mkdir()
        yield written
        for each in (*written.rglob("*"), written):
            sync(each)
        if replace and path.exists():
            old.parent.mkdir()
            os.replace(path, old)
        try:
            os.replace(written, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        sync(path.parent)


def make_directory(path: Path) -> None:
    """Create a directory and its missing parents, and bring their names to the disk."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync(each.parent)


def sync(path: Path) -> None:
    """Bring the content of a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_staging(path: Path) -> bool:
    """Return True for a directory of unfinished writes, which a killed process may leave behind."""
    return path.name.startswith(_STAGING_PREFIX)


def remove_abandoned(directory: Path) -> None:
    """Remove the staging directories that killed processes left in `directory`; those in use stay.

    A replacement that was killed before its end is undone. Every atomic write into `directory` calls this first.
    """
    for staging in directory.glob(f"{_STAGING_PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, removed by another process, or on a file system without locks
            lock = _lock(staging, wait=False)
            try:
                for old in staging.glob(f"{_REPLACED}/*"):
                    if not (directory / old.name).exists():
                        os.replace(old, directory / old.name)
                shutil.rmtree(staging, ignore_errors=True)
            finally:
                os.close(lock)


@contextlib.contextmanager
def translate_write_errors(target: str | Path) -> Iterator[None]:
    """Raise an `OSError` of the block, which writes `target`, as a `UserError` that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {str(target)!r}: {write_failure(error)}") from error


def write_manifest(directory: Path, name: Path) -> None:
    """Write the SHA-256 of each file under `directory`, as it reads back, to its file `name`."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    digests = {path.relative_to(directory).as_posix(): _digest(path) for path in files}
    (directory / name).write_text(json.dumps(digests, indent=2) + "\n")


def find_corruption(directory: Path, name: Path, *, needed: Path) -> str:
    """Describe the first file that is missing or differs from the manifest; empty if all are as they were written.

    Args:
        directory: directory whose files were listed.
        name: the manifest, relative to `directory`.
        needed: a file that a complete manifest lists.
    """
    file = str(name)
    try:
        digests = json.loads((directory / name).read_text())
        if not isinstance(digests, dict) or needed.as_posix() not in digests:
            return f"{name} does not list {needed}"
        for file, digest in digests.items():
            if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
                return f"{name} lists {file!r}, which lies outside the directory"
            if (directory / file).exists() and not (directory / file).is_file():
                return f"{file} is not a file"
            if _digest(directory / file) != digest:
                return f"{file} differs from what was written"
    except OSError as error:
        return f"{file}: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return f"{file}: {error}"
    return ""


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        UserError: if the file cannot be read or holds anything else.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} is not a JSON object")
    return content


def read_json_lines(path: Path, *, keys: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return the JSON objects of a file with one a line; none if there is no file.

    A last line without its end, which a killed process leaves, is ignored.

    Args:
        path: the file.
        keys: keys that every object must have.

    Raises:
        UserError: if the file cannot be read, or any other line is not a JSON object with these keys.
    """
    try:
        complete, _, _ = path.read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from error
    found = []
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"line {number} of {str(path)!r} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise UserError(f"line {number} of {str(path)!r} is not a JSON object")
        if missing := [key for key in keys if key not in content]:
            raise UserError(f"line {number} of {str(path)!r} has no {missing[0]!r}")
        found.append(content)
    return found


def write_json_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file atomically by one JSON object a line."""
    write_atomically(path, _json_lines(lines))


def append_json_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Append one JSON object a line, after removal of a last line that a killed process left without its end."""
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(_json_lines(lines).encode())
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """Yield a new directory in `parent`, locked against `remove_abandoned`, and remove it at the end."""
    make_directory(parent)
    remove_abandoned(parent)
    while True:
        staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=parent))
        try:
            lock: int | None = _lock(staging, wait=True)
        except FileNotFoundError:  # another process took it for abandoned before it was locked
            continue
        except OSError:  # a file system without locks, where nothing counts as abandoned
            lock = None
        break
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock(staging: Path, *, wait: bool) -> int:
    """Lock a staging directory and return the descriptor, whose end, that of the process included, unlocks it.

    Raises:
        FileNotFoundError: if the directory is gone.
        OSError: if another process holds the lock and `wait` is False, or the file system has no locks.
    """
    descriptor = os.open(staging / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if not os.fstat(descriptor).st_nlink:
            raise FileNotFoundError(staging)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _json_lines(lines: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
