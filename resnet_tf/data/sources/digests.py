"""Digests of the content of examples, by which copies are found; those of large data are cached."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from resnet_tf.core.files import write_atomically
from resnet_tf.core.graphs import without_autograph
from resnet_tf.core.progress_line import tracked
from resnet_tf.data.sources.base import Split
from resnet_tf.data.sources.records import cache_directory

logger = logging.getLogger(__name__)

_SIZE = 16  # bytes of a digest
_END = 4096  # bytes at the end of a file
_CACHED_FROM = 2**26  # bytes of files; fewer are read in less than a second
_CACHED_ARRAYS = 20_000
_BATCH = 256  # examples


def digest_files(files: Sequence[str], *, end_only: bool = False) -> list[bytes]:
    """Return the digest of each file, 16 bytes, from the cache if no path, size and time of a change differs.

    Args:
        files: paths of files.
        end_only: read the last 4 KiB only, in which nearly all images differ.
    """
    stats = list(map(os.stat, files))
    key = json.dumps(
        [end_only, [[file, each.st_size, each.st_mtime_ns] for file, each in zip(files, stats, strict=True)]]
    )
    starts = [max(each.st_size - _END, 0) if end_only else 0 for each in stats]
    is_large = sum(each.st_size - start for each, start in zip(stats, starts, strict=True)) >= _CACHED_FROM

    def read() -> Iterator[bytes]:
        for file, start in zip(
            tracked(files, "comparing the splits", noun="file", total=len(files)), starts, strict=True
        ):
            with open(file, "rb") as stream:
                stream.seek(start)
                yield _digest(stream.read())

    return _from_cache(key, len(files), read) if is_large else list(read())


def digest_arrays(split: Split) -> list[bytes]:
    """Return the digest of each example of a split, 16 bytes, from the cache if its fingerprint is the same."""
    key = json.dumps([split.name, split.num_examples, split.fingerprint()])

    def read() -> Iterator[bytes]:
        for example in tracked(_examples(split), "comparing the splits", noun="example", total=split.num_examples):
            yield _digest(example if isinstance(example, bytes) else example.tobytes())

    is_large = split.num_examples >= _CACHED_ARRAYS and split.fingerprint()
    return _from_cache(key, split.num_examples, read) if is_large else list(read())


def _examples(split: Split) -> Iterator[Any]:
    """Yield the examples of a split, encoded or as arrays; those of one shape come from TensorFlow in batches."""
    examples = split.examples().map(without_autograph(lambda example, label: example))
    if not examples.element_spec.shape.is_fully_defined():
        yield from examples.as_numpy_iterator()
        return
    for batch in examples.batch(_BATCH).as_numpy_iterator():
        yield from batch


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_SIZE).digest()


def _from_cache(key: str, count: int, read: Callable[[], Iterator[bytes]]) -> list[bytes]:
    """Return the digests that are stored under a key; without them, read and store them."""
    path = cache_directory("digests") / hashlib.sha256(os.fsencode(key)).hexdigest()[:32]
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if len(content) == count * _SIZE:
        return [content[start : start + _SIZE] for start in range(0, len(content), _SIZE)]
    digests = list(read())
    try:
        write_atomically(path, b"".join(digests))
    except OSError as error:
        logger.warning("cannot write %r (%s); the next run reads the examples again", str(path), error)
    return digests
