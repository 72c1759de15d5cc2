"""Paths as users write them, and as TensorFlow reads them."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from resnet_tf.core.errors import UserError

_PATTERN = frozenset("*?[\\")


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home directory for a leading `~`, which shells leave unchanged in `--flag=~/name`."""
    return Path(os.path.expanduser(path))


def check_writable_by_tensorflow(path: Path) -> None:
    """Check that TensorFlow can write to a path, before anything that would be lost is computed.

    Raises:
        UserError: for a path that is not UTF-8.
    """
    if not _is_utf8(path):
        raise UserError(f"TensorFlow cannot write to {str(path)!r}, whose name is not UTF-8; take another one")


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def literal_path(directory: Path) -> Iterator[Path]:
    """Yield a path by which TensorFlow reads files of a directory whose path looks like a pattern or is not UTF-8.

    TensorFlow takes the prefix of a checkpoint, which is also a part of a SavedModel, for a pattern of file names:
    under `try [lr=0.1]` it finds nothing. Such a directory is read through a symbolic link.

    Raises:
        UserError: if the directory for temporary files has such a path, too.
    """
    if not _PATTERN & set(str(directory)) and _is_utf8(directory):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="resnet_tf-") as temporary:
        if _PATTERN & set(temporary) or not _is_utf8(Path(temporary)):
            raise UserError(
                f"TensorFlow cannot read {str(directory)!r}, which contains *, ?, [ or \\, or is not UTF-8; set TMPDIR "
                "to a directory without them"
            )
        link = Path(temporary) / "link"
        link.symlink_to(directory.absolute(), target_is_directory=True)
        yield link
