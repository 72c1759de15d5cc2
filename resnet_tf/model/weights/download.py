"""Download of published weights to the cache of Keras, with verification of their hashes."""

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
from resnet_tf.core.paths import user_path
from resnet_tf.model.weights import readers
from resnet_tf.model.weights.published import Pretrained

# Socket timeout in seconds. Without a timeout, a download behind a firewall that drops packets never ends.
TIMEOUT = 30


def fetch(pretrained: Pretrained) -> Path:
    """Download a published file unless it is cached, and return its path.

    The cache is that of Keras: `models` in `KERAS_HOME`, by default `~/.keras`.

    Raises:
        UserError: if the download fails or the hash differs. A failed download leaves no file in the cache.
    """
    readers.check_readable(pretrained.file_name)
    home = user_path(os.environ.get("KERAS_HOME", "~/.keras"))
    path = home / "models" / pretrained.file_name
    if path.is_file():
        if mismatch := _digest_mismatch(path, pretrained.digest):
            raise UserError(f"{str(path)!r} is not the published file: {mismatch}; delete it to download it again")
        return path
    try:
        with files.atomic_file(path) as staging:
            _download(pretrained.url, staging)
            if mismatch := _digest_mismatch(staging, pretrained.digest):
                raise UserError(f"the download from {pretrained.url} is not the published file: {mismatch}")
    except UserError:
        raise
    except Exception as error:  # get_file raises plain `Exception`
        raise UserError(
            f"{pretrained.url} could not be downloaded ({error}). "
            f"Put the file at {str(path)!r}, or pass the path of a copy as weights"
        ) from error
    return path


def _download(url: str, path: Path) -> None:
    folder = path.parent
    with contextlib.redirect_stdout(sys.stderr), _timeout(TIMEOUT):  # stdout is for results
        keras.utils.get_file(path.name, url, cache_dir=folder.parent, cache_subdir=folder.name, force_download=True)


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _digest_mismatch(path: Path, digest: str) -> str:
    """Return a description of a hash mismatch; empty if the hash is as expected."""
    # Expected hashes may be prefixes, as in the file names of torchvision.
    algorithm, expected = digest.split(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()[: len(expected)]
    return "" if found == expected else f"its {algorithm} begins with {found}, not {expected}"
