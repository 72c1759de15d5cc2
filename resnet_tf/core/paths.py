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


def user_directory(name: str) -> Path:
    """Return a directory in the home directory; in /tmp if it does not exist and there is no home to create it in.

    Accounts of containers and of batch systems often have no home directory, or one that they cannot write.

    Args:
        name: name of the directory, such as `.cache`.
    """
    own = user_path(f"~/{name}")
    return own if os.path.isdir(own) or os.access(own.parent, os.W_OK) else Path("/tmp", name)


def keras_home() -> Path:
    """Return the directory of Keras's configuration and cache, `KERAS_HOME` or `~/.keras`, as Keras chooses it.

    Its own function cannot be used before the backend is checked. It takes /tmp also for an existing `~/.keras` in a
    home directory that cannot be written, where weights that were downloaded on another machine would be missed.
    """
    home = os.environ.get("KERAS_HOME")
    return user_path(home) if home else user_directory(".keras")


def source_text(source: str | Path) -> str:
    """Return a data source as text in which `./digits` stays distinct from `digits`, the name of a data set.

    A `Path` drops the `./`, and becomes absolute if it exists.
    """
    if isinstance(source, Path) and (path := user_path(source)).exists():
        return str(path.absolute())
    return os.path.expanduser(source)


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
