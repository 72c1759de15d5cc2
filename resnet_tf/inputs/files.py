"""Files of examples below a folder: recognized by suffix or content; all other files are counted and named."""

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from resnet_tf.core.errors import UserError
from resnet_tf.core.files import is_hidden
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.text import counted, printable
from resnet_tf.inputs.base import Preprocess

logger = logging.getLogger(__name__)

_HEAD = 32  # bytes, enough for the signature of every format
_NAMED = 5  # skipped files in the log
# First bytes -> format, for formats that are not examples of any input type.
_OTHER_FORMATS = {
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"PK\x03\x04": "zip",
}
# Brand of an ISO base media file, bytes 8 to 12 -> format.
_BRANDS = dict.fromkeys([b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"], "HEIC")
_BRANDS |= dict.fromkeys([b"avif", b"avis"], "AVIF")


@dataclass(frozen=True)
class Listing:
    """Files below a folder.

    Attributes:
        files: paths of the examples, sorted.
        skipped: path -> description of each file that is no example, such as `TIFF`.
    """

    files: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def list_folders(folder: str) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones and links to folders above.

    Raises:
        UserError: if the folder cannot be read.
    """
    above = (os.path.realpath(folder),)
    return [entry.name for entry in _scan(folder) if _is_directory(entry) and not _is_loop(entry, above)]


def list_files(
    folder: str, input_type: type[Preprocess], *, recursive: bool = True, progress: Progress | None = None
) -> Listing:
    """List the examples of an input type below a folder; hidden files and folders are ignored.

    A file with a suffix of the input type is an example. Other files are examples if their content is that of the input
    type. Links are followed, except to a folder above them, and each folder is listed once.

    Args:
        folder: path of the folder.
        input_type: class of the preprocessing.
        recursive: include subfolders.
        progress: of a listing that this one is a part of; a new one by default.
    """
    listing = Listing()
    with contextlib.nullcontext(progress) if progress else indexing(folder) as counter:
        for entry, reason in _walk(folder, recursive):
            if description := reason or _skip_reason(entry, input_type):
                listing.skipped[entry.path] = description
            else:
                listing.files.append(entry.path)
            counter.done += 1
    listing.files.sort()
    return listing


def has_files(folder: str, input_type: type[Preprocess]) -> bool:
    """Return True if a folder itself, without its subfolders, has an example of an input type."""
    return any(not _is_directory(entry) and not _skip_reason(entry, input_type) for entry in _scan(folder))


def indexing(folder: str) -> Progress:
    """Return the progress of listing a folder."""
    return Progress(f"indexing {folder!r}", noun="file")


def log_skipped(folder: str, skipped: dict[str, str], input_type: type[Preprocess]) -> None:
    """Log the number, the formats and the first names of skipped files in one line; nothing if there are none."""
    if not skipped:
        return
    counts = ", ".join(f"{count:,} {name}" for name, count in Counter(skipped.values()).most_common())
    paths = sorted(skipped)
    names = ", ".join(os.path.relpath(path, folder) for path in paths[:_NAMED]) + (", ..." if paths[_NAMED:] else "")
    are_no = f"is no {input_type.noun}" if len(paths) == 1 else f"are no {input_type.plural}"
    text = f"skipped {counted(len(paths), 'file')} of {folder!r} that {are_no}: {counts} ({names})"
    logger.warning("%s", printable(text))


def _walk(folder: str, recursive: bool) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Yield the entries below a folder that are no folders; with a description, also folders that are not listed.

    Args:
        folder: path of the folder.
        recursive: include subfolders.
    """
    root = os.path.realpath(folder)
    visited = {root}  # canonical paths of the folders that were listed
    # A stack instead of recursion, which Python limits to 1,000 folders: the entries of each open folder that remain,
    # and the canonical path of the folder.
    opened = [(iter(_scan(folder)), root)]
    while opened:
        entry = next(opened[-1][0], None)
        if entry is None:
            opened.pop()
        elif not _is_directory(entry):
            yield entry, ""
        elif _is_loop(entry, [path for _, path in opened]):
            yield entry, "link to a folder above it"
        elif recursive and (target := os.path.realpath(entry.path)) in visited:
            yield entry, "folder listed before, through a link"
        elif recursive:
            visited.add(target)
            opened.append((iter(_scan(entry.path)), target))


def _is_loop(entry: os.DirEntry[str], above: Sequence[str]) -> bool:
    """Return True for a link to one of some folders, or to a folder that contains one of them."""
    if not entry.is_symlink():
        return False
    target = os.path.realpath(entry.path)
    return any(each == target or each.startswith(os.path.join(target, "")) for each in above)


def _scan(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted, without hidden ones."""
    try:
        # Entries of `scandir` are several times faster than `Path` for large data sets.
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot read {folder!r}: {error.strerror}") from error


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Return True for a directory; False for a link that leads to itself, where `is_dir` raises an error."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _skip_reason(entry: os.DirEntry[str], input_type: type[Preprocess]) -> str:
    """Return a description of a file that is no example of the input type; empty for an example."""
    suffix = os.path.splitext(entry.name)[1].lower()
    missing = entry.is_symlink() and not os.path.exists(entry.path)
    if not missing and not entry.is_file():
        return "device, pipe or socket"  # reading it may never end
    if suffix in input_type.file_suffixes:
        return ""
    try:
        with open(entry.path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return "" if input_type.is_example(head) else _describe(head, suffix)


def _describe(head: bytes, suffix: str) -> str:
    if not head:
        return "empty"
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return _BRANDS[head[8:12]]
    found = (name for signature, name in _OTHER_FORMATS.items() if head.startswith(signature))
    return next(found, suffix or "without suffix")
