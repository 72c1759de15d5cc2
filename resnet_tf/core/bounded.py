"""Bounded reading of files of unknown origin: regular files up to a size, and strict JSON.

A device, a pipe or a socket instead of a file would block a process or fill its memory, and a symbolic link could
lead to a file of the user that the origin of a directory must not see.
"""

import errno
import json
import os
import stat
from collections import Counter
from io import BufferedReader
from pathlib import Path
from typing import Any

# Largest file of JSON in bytes: 200,000 class names take 5 MB, and parsed JSON takes about 10 times its size in memory.
MAX_JSON_BYTES = 2**24
_MAX_DEPTH = 100  # of nested lists and objects; the deepest files, which describe Keras models, have less than 30
_MAX_EXPANSION, _FREE_BYTES = 100, 2**28


def open_regular(path: str | Path, *, inside: Path | None = None) -> BufferedReader:
    """Open a regular file for reading.

    Args:
        path: the file.
        inside: directory that the file must be in, after symbolic links are followed; None for any.

    Raises:
        OSError: if there is no such file, it is not a regular file, it lies outside, or cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if inside is not None and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(inside)):
        raise OSError(errno.EINVAL, f"a symbolic link to a file outside of {str(inside)!r}", str(path))
    # Non-blocking, as the file may be replaced by a pipe after the check above.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: str | Path, *, limit: int = MAX_JSON_BYTES, inside: Path | None = None) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; see `open_regular`.

    Raises:
        OSError: as `open_regular`, or for a larger file.
    """
    with open_regular(path, inside=inside) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than the limit of {limit:,} bytes", str(path))
    return content


def parse_json(content: bytes | str) -> Any:
    """Parse JSON in UTF-8, with or without a byte order mark.

    Numbers may be NaN or infinite, which Python writes for metrics without a value.

    Raises:
        ValueError: for other text, keys that occur twice in an object, nesting deeper than 100 levels, or half of a
            surrogate pair that does not stand for a byte of a file name.
        RecursionError: for very deep nesting.
    """
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    value = json.loads(text, object_pairs_hook=_unique_keys)
    pending = [(value, 1)]
    while pending:
        each, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
        if isinstance(each, dict):
            pending += [(item, depth + 1) for pair in each.items() for item in pair]
        elif isinstance(each, list):
            pending += [(item, depth + 1) for item in each]
        elif isinstance(each, str) and not _is_encodable(each):
            raise ValueError("a string holds half of a surrogate pair")
    return value


def check_expansion(claimed: int, stored: int) -> None:
    """Refuse content that would take up much more memory than its file, such as an archive of zeros.

    Args:
        claimed: size of the content in bytes, as the file states it.
        stored: size of the file in bytes.

    Raises:
        ValueError: if the content is larger than 256 MB and more than 100 times its file.
    """
    if claimed < 0 or claimed > max(_MAX_EXPANSION * stored, _FREE_BYTES):
        raise ValueError(f"it claims {claimed:,} bytes of content in a file of {stored:,} bytes")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {next(key for key in counts if counts[key] > 1)!r} occurs twice in an object")
    return found


def _is_encodable(text: str) -> bool:
    """Return True for text without lone surrogates, except those that stand for undecodable bytes of file names."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
