"""Download of published weights into Keras's cache, verified by their hashes."""

import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import keras

from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.model.weights import readers
from resnet_tf.model.weights.published import Pretrained

# Seconds without an answer: behind a firewall that drops packets, a download would wait forever.
TIMEOUT = 30


def fetch(pretrained: Pretrained) -> Path:
    """Return the path of a published file in Keras's cache (`~/.keras/models`, or `KERAS_HOME`), downloaded if need be.

    Raises:
        UserError: if the download fails or the hash differs; a failed download leaves no file behind.
    """
    readers.check_readable(pretrained.file_name)
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    path = home / "models" / pretrained.file_name
    if path.is_file():
        if wrong := _wrong_digest(path, pretrained.digest):
            raise UserError(f"{str(path)!r} is not the published file: {wrong}; delete it to fetch it again")
        return path
    try:
        with files.atomic_file(path) as staging:
            _download(pretrained.url, staging)
            if wrong := _wrong_digest(staging, pretrained.digest):
                raise UserError(f"what {pretrained.url} gave is not the published file: {wrong}")
    except UserError:
        raise
    except Exception as error:  # get_file raises bare ones
        raise UserError(
            f"{pretrained.url} could not be fetched ({error}). "
            f"Put the file at {str(path)!r}, or give the path of a copy as weights"
        ) from error
    return path


def _download(url: str, path: Path) -> None:
    folder = path.parent
    with contextlib.redirect_stdout(sys.stderr), _timeout(TIMEOUT):  # stdout belongs to results
        keras.utils.get_file(path.name, url, cache_dir=folder.parent, cache_subdir=folder.name, force_download=True)


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _wrong_digest(path: Path, digest: str) -> str:
    """Return a description of a hash mismatch, empty for a match."""
    algorithm, expected = digest.split(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()[: len(expected)]
    return "" if found == expected else f"its {algorithm} begins with {found}, not {expected}"
