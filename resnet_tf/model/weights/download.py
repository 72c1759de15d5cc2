"""Download of published weights to the cache of Keras, with verification of their hashes."""

import contextlib
import errno
import hashlib
import http.client
import os
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from resnet_tf.core import downloads, files, locks
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.paths import keras_home
from resnet_tf.core.streams import write_or_drop
from resnet_tf.core.text import printable
from resnet_tf.model.weights import readers
from resnet_tf.model.weights.pretrained import Pretrained

# Socket timeout in seconds. Without a timeout, a download behind a firewall that drops packets never ends.
TIMEOUT = 30
MIRROR, OFFLINE = "RESNET_TF_MIRROR", "RESNET_TF_OFFLINE"  # environment variables
_ATTEMPTS = 100  # to lock a file that others delete


def fetch(pretrained: Pretrained) -> Path:
    """Download a published file unless it is cached, and return its path.

    The cache is that of Keras: `models` in `KERAS_HOME`, by default `~/.keras`, see `paths.keras_home`. Environment
    variables: `RESNET_TF_MIRROR` is the URL of a mirror, with each file at MIRROR/HOST/PATH of its published URL;
    `RESNET_TF_OFFLINE=1` forbids downloads.

    An interrupted download is continued, now or by the next call, from `NAME.part` in the cache.

    Raises:
        UserError: if the download fails, is forbidden, or the hash differs. A file of another hash is not kept.
    """
    readers.check_readable(pretrained.file_name)
    path = cached_path(pretrained)
    url = mirrored(pretrained.url)
    while not path.is_file():
        if is_offline():
            raise UserError(
                f"{str(path)!r} is missing, and {OFFLINE} forbids its download: put {pretrained.url} there, or pass "
                "the path of a copy as weights"
            )
        try:
            _download(url, path, pretrained.digest)
        except (OSError, http.client.HTTPException) as error:
            begun = _part(path).is_file()
            raise UserError(
                f"{url} could not be downloaded ({printable(plain_reason(error))})."
                f"{' The next attempt continues where this one ended.' if begun else ''} Put the file at "
                f"{str(path)!r}, or pass the path of a copy as weights"
            ) from error
    if mismatch := _digest_mismatch(path, pretrained.digest):
        raise UserError(f"{str(path)!r} is not the published file: {mismatch}; delete it to download it again")
    return path


def cached_path(pretrained: Pretrained) -> Path:
    """Return the path of a published file in the cache, whether it is there or not."""
    return keras_home() / "models" / pretrained.file_name


def mirrored(url: str) -> str:
    """Return the URL to download from: a published one, or its copy on the mirror.

    Raises:
        UserError: if the mirror is no URL.
    """
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    if not mirror:
        return url
    if not mirror.startswith(("http://", "https://")):
        raise UserError(f"{MIRROR}={mirror!r} is not the URL of a mirror, such as 'https://mirror.example/weights'")
    published = urllib.parse.urlsplit(url)
    return f"{mirror}/{published.netloc}{published.path}"


def is_offline() -> bool:
    """Return True if `RESNET_TF_OFFLINE` forbids downloads."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no", "off")


def _download(url: str, path: Path, digest: str) -> None:
    """Download a file to `path`, unless another process does so in the meantime, and verify its hash.

    Raises:
        UserError: if the hash differs from `digest`, or, if that is empty, from the SHA-256 that the server states.
    """
    part = _part(path)
    _make_cache(path.parent)
    with _locked(part):
        if path.is_file():
            return
        write_or_drop(sys.stderr, f"downloading {url} to {str(path)!r}\n")
        stated = downloads.download(url, part, name=path.name, timeout=TIMEOUT)
        digest = digest or (f"sha256:{stated}" if stated else "")
        if mismatch := _digest_mismatch(part, digest) if digest else "the server does not state its SHA-256":
            part.unlink()
            raise UserError(f"the download from {url} is not the published file: {mismatch}")
        files.replace_durably(part, path)


def _make_cache(directory: Path) -> None:
    """Create the directory of the cache if it is missing.

    Raises:
        UserError: if it cannot be created or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(directory, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise UserError(
            f"weights are downloaded to {str(directory)!r}, which cannot be written ({reason}); set KERAS_HOME to a "
            "directory that can, or pass the path of a copy as weights"
        )


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Hold a lock on an unfinished download, so that two processes never write it at the same time."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):  # deleted by the holder
            lock = locks.acquire(part, wait=True)
            break
    else:
        raise UserError(f"{str(part)!r} is deleted again and again by another process")
    try:
        yield
    finally:
        try:
            if part.is_file() and not part.stat().st_size:
                part.unlink()
        finally:
            locks.release(lock)


def _digest_mismatch(path: Path, digest: str) -> str:
    """Return a description of a hash mismatch; empty if the hash is as expected, or none is known."""
    if not digest:
        return ""
    # Expected hashes may be prefixes, as in the file names of torchvision.
    algorithm, expected = digest.split(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()[: len(expected)]
    return "" if found == expected else f"its {algorithm} begins with {found}, not {expected}"
