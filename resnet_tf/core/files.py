"""Atomic writes of files and directories, SHA-256 manifests, JSON and JSON Lines.

Everything is written to a staging directory beside its destination, brought to the disk, and renamed: a kill or a loss
of power leaves the old content or the new one, never a part of it.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from resnet_tf.core import locks
from resnet_tf.core.bounded import open_regular, parse_json, read_regular
from resnet_tf.core.errors import UserError, write_failure
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.validation import find_mismatch

# No number: TensorFlow Serving and the readers of checkpoints and exports ignore directories of this name.
_STAGING_PREFIX = ".resnet_tf-writing-"
_LOCK, _REPLACED = ".lock", ".replaced"  # in a staging directory, beside what is written
# Files and folders of operating systems, archives and editors, in lower case; so are all names that begin with a dot.
_SYSTEM_NAMES = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini"}
)
# Errors of a rename to the path of a directory that is not empty, or of a file.
_OCCUPIED = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
_ATTEMPTS = 100  # to create a staging directory that others remove
# Largest file of JSON Lines in bytes: metrics of 100,000 epochs, or 300,000 unreadable examples.
_MAX_LINES_BYTES = 2**26
_MAX_CORRUPT_LINES = 100
# Largest file of an export or a checkpoint in bytes; checkpoints of the largest network take up 15 GB.
_MAX_LISTED_BYTES = 2**36


@contextlib.contextmanager
def atomic_file(path: str | Path, *, new: bool = False) -> Iterator[Path]:
    """Yield a path of the same name to write to; at the end of the block the file there replaces `path`.

    Missing parent directories are created. Where `path` is a symbolic link, the file that it points to is replaced.
    Where the block fails, nothing changes.

    Args:
        path: the file.
        new: refuse to replace a file. Of several writers at once, one creates it.

    Raises:
        FileExistsError: if `new`, and the file exists at the end of the block.
        OSError: if it cannot be written.
    """
    final = Path(os.path.realpath(path))
    with _staging(final.parent) as staging:
        written = staging / Path(path).name
        yield written
        sync(written)
        (_rename_to_new if new else os.replace)(written, final)
        sync(final.parent)


def write_atomically(path: str | Path, content: str | bytes, *, new: bool = False) -> Path:
    """Write `content` as `path`, see `atomic_file`, and return `path`; text is encoded as UTF-8."""
    with atomic_file(path, new=new) as written:
        written.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def replace_durably(part: Path, path: Path) -> None:
    """Rename a complete file to its final name in the same directory, replacing what is there, and sync both."""
    sync(part)
    os.replace(part, path)
    sync(path.parent)


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
        _sync_tree(written)
        if replace:
            _replace_directory(path, written, old)
        else:
            os.replace(written, path)
        sync(path.parent)


def write_version(directory: Path, write: Callable[[Path], None]) -> Path:
    """Write a new subdirectory of `directory`, and name it by the next free number, in one rename.

    Of several writers at once, each gets a number of its own: whose rename comes second takes the next one.

    Args:
        directory: directory of the versions. It and missing parent directories are created.
        write: function that writes the files of the version to an empty directory.

    Returns:
        The subdirectory, `directory/NUMBER`.

    Raises:
        OSError: if `directory` cannot be written; nothing changes then.
    """
    with _staging(directory) as staging:
        written = staging / "version"
        written.mkdir()
        write(written)
        _sync_tree(written)
        for number in itertools.count(max(list_numbered(directory), default=0) + 1):
            try:
                os.replace(written, directory / str(number))
                break
            except OSError as error:
                if error.errno not in _OCCUPIED:
                    raise
        sync(directory)
        return directory / str(number)


@contextlib.contextmanager
def atomic_files(directory: Path) -> Iterator[Path]:
    """Yield an empty directory to write files to; at the end of the block they replace those in `directory`.

    Of several writers at once, one moves its files after the other, so that `directory` has those of one writer only.
    Files of other names stay. Missing parent directories are created. Where the block fails, nothing changes.
    """
    with _staging(directory) as staging:
        yield staging
        written = sorted(path for path in staging.iterdir() if not is_hidden(path.name))
        for path in written:
            sync(path)
        lock = locks.acquire(directory, wait=True)
        try:
            for path in written:
                os.replace(path, directory / path.name)
            sync(directory)
        finally:
            locks.release(lock)


def remove_directory(path: Path) -> None:
    """Remove a directory with its content; readers find the complete directory or none."""
    with _staging(path.parent) as staging:
        os.replace(path, staging / path.name)


def final_path(path: Path) -> Path:
    """Return the path that a path within a staging directory gets at the end of its block; others are unchanged."""
    return Path(*(part for part in path.parts if not part.startswith(_STAGING_PREFIX)))


def total_size(directory: Path) -> int:
    """Return the size of all files under a directory, in bytes."""
    return sum(os.path.getsize(file) for file in directory.rglob("*") if file.is_file())


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


def is_hidden(name: str) -> bool:
    """Return True for the name of a hidden file or folder, and for names that operating systems create.

    They are ignored wherever a directory is checked or searched. Staging directories are hidden.
    """
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def list_numbered(directory: Path, *, digits: int = 1) -> dict[int, Path]:
    """Return the subdirectories whose names are numbers of at least `digits` digits, sorted; none without `directory`.

    Raises:
        UserError: if `directory` cannot be read, or two names are the same number, such as `1` and `0001`.
    """
    try:
        paths = sorted(directory.iterdir())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"cannot read {str(directory)!r}: {error.strerror}") from error
    found: dict[int, Path] = {}
    for path in paths:
        if not re.fullmatch(rf"[0-9]{{{digits},18}}", path.name) or not path.is_dir():
            continue
        first = found.setdefault(int(path.name), path)
        if first != path:
            raise UserError(f"{str(first)!r} and {str(path)!r} are the same version; remove one of them")
    return dict(sorted(found.items()))


def remove_abandoned(directory: Path) -> None:
    """Remove the staging directories that killed processes left in `directory`; those in use stay.

    A replacement that was killed before its end is undone. Every atomic write into `directory` calls this first.
    """
    for staging in directory.glob(f"{_STAGING_PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, removed by another process, or on a file system without locks
            _remove_unlocked(staging)


def _remove_unlocked(staging: Path) -> None:
    """Restore the directory that was about to be replaced, and remove a staging directory, unless its lock is held.

    Links, which no writer creates, would lead to files of others: they are neither followed nor restored.

    Raises:
        OSError: if the lock cannot be taken, or the directory cannot be restored.
    """
    if staging.is_symlink() or not staging.is_dir():
        return
    lock = locks.acquire(staging / _LOCK, wait=False)
    if lock is None:
        return
    try:
        replaced = staging / _REPLACED
        for old in () if replaced.is_symlink() else replaced.glob("*"):
            target = staging.parent / old.name
            if old.is_dir() and not old.is_symlink() and not target.exists():
                os.replace(old, target)
        shutil.rmtree(staging, ignore_errors=True)
    finally:
        locks.release(lock)


@contextlib.contextmanager
def translate_write_errors(target: str | Path) -> Iterator[None]:
    """Raise an `OSError` of the block, which writes `target`, as a `UserError` that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {str(final_path(Path(target)))!r}: {write_failure(error)}") from error


def write_manifest(directory: Path, name: Path) -> None:
    """Write the SHA-256 of each file under `directory`, as it reads back, to its file `name`."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    digests = {path.relative_to(directory).as_posix(): _digest(path) for path in files}
    (directory / name).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


def find_corruption(directory: Path, name: Path, *, needed: Path) -> str:
    """Describe the first file that is missing, differs from the manifest, or is not listed; empty if there is none.

    Listed files must be regular files inside the directory. Hidden files and leftovers of file managers, which no
    reader opens, need not be listed.

    Args:
        directory: directory whose files were listed.
        name: the manifest, relative to `directory`.
        needed: a file that a complete manifest lists.
    """
    with Progress(f"verifying the files of {str(directory)!r}"):
        return _find_corruption(directory, name, needed)


def _find_corruption(directory: Path, name: Path, needed: Path) -> str:
    file = str(name)
    try:
        digests = parse_json(read_regular(directory / name, inside=directory))
        if not isinstance(digests, dict) or needed.as_posix() not in digests:
            return f"{name} does not list {needed}"
        for file, digest in digests.items():
            if problem := _find_wrong_name(file):
                return f"{name} lists {file!r}, {problem}"
            if (directory / file).exists() and not (directory / file).is_file():
                return f"{file} is not a file"
            if _digest(directory / file, inside=directory) != digest:
                return f"{file} differs from what was written"
        if unlisted := _find_unlisted(directory, {*digests, name.as_posix()}):
            return f"{unlisted!r} is not one of the files that were written"
    except OSError as error:
        return f"{file}: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return f"{file}: {error}"
    return ""


def read_json(path: Path, *, inside: Path | None = None) -> dict[str, Any]:
    """Return the JSON object in a regular file of at most 16 MB; see `parse_json`.

    Args:
        path: of the file.
        inside: directory that the file must not lead out of by symbolic links.

    Raises:
        UserError: if the file cannot be read or holds anything else.
    """
    try:
        content = parse_json(read_regular(path, inside=inside))
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} is not a JSON object")
    return content


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON; numbers that are not finite, which JSON lacks, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def read_json_lines(path: Path, declared: Any = dict[str, Any]) -> list[dict[str, Any]]:
    """Return the JSON objects of a file with one a line; none if there is no file.

    A null is a number that was not finite when it was written, and is returned as NaN.
    A last line without its end, which a killed process leaves, is ignored.

    Args:
        path: a regular file of at most 64 MB.
        declared: type of every object, such as a `TypedDict`; see `find_mismatch`.

    Raises:
        UserError: if the file cannot be read, or any other line is not a JSON object of this type.
    """
    found, corrupt = split_json_lines(path, declared)
    if corrupt:
        raise UserError(f"{corrupt[0]}; remove the line")
    return found


def split_json_lines(path: Path, declared: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the JSON objects as `read_json_lines`, and a description of each line that is none.

    Raises:
        UserError: if the file cannot be read, or has more than 100 corrupt lines.
    """
    try:
        complete, _, _ = read_regular(path, limit=_MAX_LINES_BYTES).rpartition(b"\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from error
    found: list[dict[str, Any]] = []
    corrupt: list[str] = []
    for number, line in enumerate(complete.split(b"\n") if complete else (), start=1):
        if len(corrupt) > _MAX_CORRUPT_LINES:
            raise UserError(f"{str(path)!r} has more than {_MAX_CORRUPT_LINES} corrupt lines; move the file away")
        name = f"line {number} of {str(path)!r}"
        try:
            content = parse_json(line)
        except (ValueError, RecursionError) as error:
            corrupt.append(f"{name} is not JSON: {error}")
            continue
        if isinstance(content, dict):
            content = {key: math.nan if value is None else value for key, value in content.items()}
        mismatch = find_mismatch(content, declared, name)
        if isinstance(content, dict) and not mismatch:
            found.append(content)
            continue
        corrupt.append(mismatch if isinstance(content, dict) else f"{name} is not a JSON object")
    return found, corrupt


def write_json_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file atomically by one JSON object a line."""
    write_atomically(path, _json_lines(lines))


def append_json_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Append one JSON object a line, after removal of a last line that a killed process left without its end.

    Several writers at once take turns.
    """
    lock = locks.acquire(Path(os.path.realpath(path)), wait=True)
    try:
        with path.open("a+b") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(_json_lines(lines).encode())
            file.flush()
            os.fsync(file.fileno())
    finally:
        locks.release(lock)


@contextlib.contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """Yield a new directory in `parent`, locked against `remove_abandoned`, and remove it at the end."""
    staging, lock = _create_staging(parent)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        locks.release(lock)


def _create_staging(parent: Path) -> tuple[Path, int | None]:
    """Create a staging directory in `parent`, and return it with its lock, None on a file system without locks."""
    for _ in range(_ATTEMPTS):
        # Missing if another process removed `parent`, which was empty, or took the directory for abandoned.
        with contextlib.suppress(FileNotFoundError):
            make_directory(parent)
            remove_abandoned(parent)
            staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=parent))
            try:
                return staging, locks.acquire(staging / _LOCK, wait=True)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(parent))


def _replace_directory(path: Path, written: Path, old: Path) -> None:
    """Rename `written` to `path`, and move what is there, also by another writer at the same time, to `old`."""
    while True:
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            old.parent.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # moved away by another writer
                os.replace(path, old)
        try:
            os.replace(written, path)
            return
        except OSError as error:
            if error.errno in _OCCUPIED and path.is_dir():
                continue
            if old.exists() and not path.exists():
                os.replace(old, path)
            raise


def _rename_to_new(written: Path, final: Path) -> None:
    """Rename a file to a path that does not exist, also if others try the same at the same time."""
    try:
        os.link(written, final)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if final.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from None
        os.replace(written, final)


def _sync_tree(directory: Path) -> None:
    for each in (*directory.rglob("*"), directory):
        sync(each)


def _json_lines(lines: Iterable[Mapping[str, Any]]) -> str:
    return "".join(to_json(line) + "\n" for line in lines)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _find_wrong_name(file: str) -> str:
    """Describe what is wrong with the name of a listed file; empty if it is a plain relative path."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        return "which lies outside the directory"
    return "" if file == path.as_posix() and path.parts and "\\" not in file else "which is not a plain relative path"


def _find_unlisted(directory: Path, listed: Collection[str]) -> str:
    """Return the first path in a directory that is not listed, foreign files excepted; empty if there is none."""
    for parent, folders, names in os.walk(directory):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in (*names, *links):
            path = (Path(parent) / name).relative_to(directory).as_posix()
            if path not in listed and not is_hidden(name):
                return path
    return ""


def _digest(path: Path, *, inside: Path | None = None) -> str:
    with open_regular(path, inside=inside) as file:
        if os.fstat(file.fileno()).st_size > _MAX_LISTED_BYTES:
            raise OSError(errno.EFBIG, f"larger than the limit of {_MAX_LISTED_BYTES:,} bytes", str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()
