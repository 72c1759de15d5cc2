"""The SHA-256 of each file of a directory, kept beside them: whether they are still as they were written."""

import hashlib
import json
import os
from pathlib import Path


def write_manifest(directory: Path, name: Path) -> None:
    """List all files under `directory`, as they read back, in its file `name`, and bring them to the disk."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    digests = {path.relative_to(directory).as_posix(): _digest(path) for path in files}
    (directory / name).write_text(json.dumps(digests, indent=2) + "\n")
    for path in (*directory.rglob("*"), directory):
        flush(path)


def find_damage(directory: Path, name: Path, *, needed: Path) -> str:
    """Which file is missing or other than it was written, in words; empty if all are as they were.

    Args:
        directory: whose files were listed.
        name: the list.
        needed: a file that a whole list has.
    """
    file = str(name)
    try:
        digests = json.loads((directory / name).read_text())
        if not isinstance(digests, dict) or needed.as_posix() not in digests:
            return f"{name} does not list {needed}"
        for file, digest in digests.items():
            if _digest(directory / file) != digest:
                return f"{file} is not what was written"
    except OSError as error:
        return f"{file}: {error.strerror}"
    except ValueError as error:
        return f"{file}: {error}"
    return ""


def flush(path: Path) -> None:
    """To the disk, so that a rename is never there before what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
