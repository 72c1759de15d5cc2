"""Random access to TFRecord files, with an index of the offset and the label of each record.

The index is read from the files in one pass, and cached for large data sets.

Format of a record: length (uint64), its masked CRC32C (uint32), the data, its masked CRC32C (uint32); see TensorFlow's
`core/lib/io/record_writer.h`.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from resnet_tf.core.bounded import open_regular
from resnet_tf.core.class_names import decode_name
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.files import write_atomically
from resnet_tf.core.graphs import without_autograph
from resnet_tf.core.machine import cores
from resnet_tf.core.paths import user_directory
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.text import counted
from resnet_tf.data.autotune import without_autotune
from resnet_tf.data.sources.base import Corruption, Split, hash_parts

logger = logging.getLogger(__name__)

_HEADER, _FRAME = 12, 16  # bytes before the data of a record, and in addition to the data
_CACHED_FROM = 2**28  # bytes; smaller data sets are indexed in one or two seconds
_INDEX_VERSION = 4  # of the JSON format of cached indices

# Record -> (label, int64 scalar; name of its class or "", a string scalar; encoded image, a string scalar), in graph
# operations.
Parse = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


@dataclass(frozen=True)
class Records:
    """Index of the records of one file, in order.

    Attributes:
        file: path of the file.
        offsets: offset of each record, in bytes, int64 [N].
        labels: label of each record as stored, int64 [N]; 0 for records that are unreadable.
        hashes: hash of the encoded image of each record, int64 [N]; 0 for records that are unreadable.
        readable: records that hold an example, bool [N].
        names: class name, as returned by `Parse`, of each label.
        corruption: corrupt parts of the file.
    """

    file: str
    offsets: np.ndarray
    labels: np.ndarray
    hashes: np.ndarray
    readable: np.ndarray
    names: dict[int, str]
    corruption: tuple[Corruption, ...]


def read_at(file: tf.Tensor, offset: tf.Tensor) -> tf.data.Dataset:
    """Return a dataset of the one record, a string scalar, at an offset of a file, in bytes."""
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[file], compression_type="", buffer_size=2**16, byte_offsets=[offset]
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(1)


def index(files: Sequence[str], parse: Parse, *, layout: str) -> list[Records]:
    """Return the index of each file, from the cache if there is one.

    Args:
        files: paths of the files.
        parse: function from a record to its label, the name of its class, and its encoded image.
        layout: name of the format that `parse` reads, part of the key of the cache.

    Raises:
        UserError: if a file is missing, or is not a regular file.
    """
    sizes = {file: _stat(file) for file in files}
    total = sum(stat.length for stat in sizes.values())
    if total < _CACHED_FROM:
        return _index_files(files, parse)
    key = json.dumps([_INDEX_VERSION, layout, [[file, stat.length, stat.mtime_nsec] for file, stat in sizes.items()]])
    cached = cache_directory("records") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if cached.is_file():
        try:
            return _from_json(cached.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            logger.warning("replacing the corrupt index %r (%s)", str(cached), error)
    logger.info("indexing %s (%.1f GB)", counted(len(files), "record file"), total / 1e9)
    records = _index_files(files, parse)
    _write_cache(cached, _to_json(records))
    return records


def split(name: str, parts: Sequence[tuple[Records, slice]], example: Callable[[tf.Tensor], tf.Tensor]) -> Split:
    """Return a split of the readable records of files, or of slices of them, with their labels as stored.

    Args:
        name: name of the split.
        parts: index of each file in order, and the slice of its records that belongs to the split.
        example: function, in graph operations, from a record to its encoded image.
    """
    files = [each.file for each, _ in parts]
    owners = np.concatenate([np.full(len(each.labels[part]), index) for index, (each, part) in enumerate(parts)])
    readable = np.concatenate([each.readable[part] for each, part in parts])
    offsets, labels, hashes = (
        np.concatenate([getattr(each, field)[part] for each, part in parts])[readable].astype(np.int64)
        for field in ("offsets", "labels", "hashes")
    )
    owners = owners[readable].astype(np.int64)
    paths, path_indices, starts = tf.constant(files), tf.constant(owners), tf.constant(offsets)

    def stream(index: tf.Tensor) -> tf.data.Dataset:
        return read_at(paths[path_indices[index]], starts[index]).map(example)

    return Split(
        name,
        labels,
        load=lambda index: stream(index).get_single_element(),
        stream=stream,
        locate=lambda index: {"file": files[owners[index]], "offset": int(offsets[index])},
        # The offsets are the sums of the sizes of the records before.
        fingerprint=lambda: hash_parts([*map(os.path.basename, files), owners.tobytes(), offsets.tobytes()]),
        hashes=hashes,
        corruption=tuple(
            corrupt for each, part in parts for corrupt in each.corruption if _is_within(corrupt, each, part)
        ),
    )


def _is_within(corrupt: Corruption, records: Records, part: slice) -> bool:
    """Return True if a corrupt part of a file is in a slice of its records."""
    index = int(np.searchsorted(records.offsets, corrupt.offset))
    return (part.start or 0) <= index and (part.stop is None or index < part.stop)


def _index_files(files: Sequence[str], parse: Parse) -> list[Records]:
    """Index all files in parallel, ignoring errors, and then incomplete results again record by record."""
    # TensorFlow allocates the length that a record claims, and ends the process if there is not as much memory.
    valid = [file for file in files if _has_valid_lengths(file)]
    found = {each.file: each for each in _index_valid(valid, parse)} if valid else {}
    return [found.get(file) or _index_corrupt(file, parse) for file in files]


def _index_valid(files: Sequence[str], parse: Parse) -> list[Records]:
    """Index files in parallel; those with unreadable records are missing in the result."""
    paths, hashed = tf.constant(list(files)), _with_hash(parse)

    def lengths_and_labels(index: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(paths[index])
        return records.map(lambda record: (index, tf.strings.length(record), *hashed(record))).ignore_errors()

    dataset = tf.data.Dataset.range(len(files)).interleave(
        without_autograph(lengths_and_labels), cycle_length=16, block_length=64, num_parallel_calls=min(cores(), 16)
    )
    parts = []
    with Progress("indexing record files", noun="record") as progress:
        for part in without_autotune(dataset.batch(4096)).as_numpy_iterator():
            parts.append(part)
            progress.done += len(part[0])
    owners, lengths, labels, names, hashes = (
        np.concatenate(arrays) for arrays in (zip(*parts, strict=True) if parts else ([np.zeros(0, np.int64)],) * 5)
    )
    found = []
    for index, file in enumerate(files):
        own = owners == index
        ends = np.cumsum(lengths[own].astype(np.int64) + _FRAME)
        if (ends[-1] if len(ends) else 0) == tf.io.gfile.stat(file).length:
            offsets = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
            readable = np.ones(len(offsets), bool)
            class_names = _names(labels[own], names[own])
            found.append(Records(file, offsets, labels[own], hashes[own], readable, class_names, ()))
    return found


def _with_hash(parse: Parse) -> Parse:
    """Return a function like `parse` that returns a hash of the image, an int64 scalar, in place of the image."""

    def hashed(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        label, name, image = parse(record)
        return label, name, tf.strings.to_hash_bucket_fast(image, 2**63 - 1)

    return hashed


def _stat(file: str) -> Any:
    if os.path.exists(file) and not os.path.isfile(file):
        raise UserError(f"cannot read {file!r}: not a regular file")
    try:
        return tf.io.gfile.stat(file)
    except tf.errors.OpError as error:
        raise UserError(f"cannot read {file!r}: {plain_reason(error)}") from error


def _has_valid_lengths(file: str) -> bool:
    """Return True if the lengths of all records add up to the size of a file; remote files are not read for that.

    A record without data, as in a file of zeros, has no label.
    """
    if not os.path.exists(file):
        return True
    with open_regular(file) as stream:
        descriptor, position = stream.fileno(), 0
        size = os.fstat(descriptor).st_size
        while position < size:
            length = int.from_bytes(os.pread(descriptor, 8, position), "little")
            if not length:
                return False
            position += length + _FRAME
    return position == size


def _names(labels: np.ndarray, names: np.ndarray) -> dict[int, str]:
    unique, first = np.unique(labels, return_index=True)
    return {int(label): decode_name(names[index]) for label, index in zip(unique, first, strict=True)}


def _index_corrupt(file: str, parse: Parse) -> Records:
    """Index a file with corrupt parts: skip records with corrupt data, and stop where no record begins."""
    size, position = tf.io.gfile.stat(file).length, 0
    offsets, labels, hashes, readable, corruption = [], [], [], [], []
    names: dict[int, str] = {}
    hashed = tf.function(_with_hash(parse), input_signature=[tf.TensorSpec([], tf.string)])
    while position < size:
        record, reason = _try_read(file, position)
        if record is None:
            following = position + _read_length(file, position) + _FRAME
            if following > size or (following < size and _try_read(file, following)[0] is None):
                corruption.append(Corruption(file, position, f"{reason}; the rest of the file is lost"))
                break
        else:
            following = position + len(record) + _FRAME
            try:
                label, name, digest = (value.numpy() for value in hashed(record))
                names.setdefault(int(label), decode_name(name))
            except tf.errors.InvalidArgumentError as error:
                record, reason = None, f"not the expected tf.train.Example ({error.message.splitlines()[0]})"
        if record is None:
            corruption.append(Corruption(file, position, reason))
        offsets.append(position)
        labels.append(0 if record is None else int(label))
        hashes.append(0 if record is None else int(digest))
        readable.append(record is not None)
        position = following
    arrays = np.array(offsets, np.int64), np.array(labels, np.int64), np.array(hashes, np.int64)
    return Records(file, *arrays, np.array(readable, bool), names, tuple(corruption))


def _try_read(file: str, position: int) -> tuple[bytes | None, str]:
    """Return the record at an offset and "", or None and the reason why it is unreadable."""
    size = tf.io.gfile.stat(file).length
    if position + _HEADER <= size < position + _read_length(file, position) + _FRAME:
        return None, "wrong checksum or incomplete record"
    try:
        return read_at(tf.constant(file), tf.constant(position, tf.int64)).get_single_element().numpy(), ""
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError, tf.errors.InvalidArgumentError):
        has_header = position + _HEADER <= size
        return None, "wrong checksum or incomplete record" if has_header else "the file is truncated here"


def _read_length(file: str, position: int) -> int:
    with tf.io.gfile.GFile(file, "rb") as stream:
        stream.seek(position)
        return int.from_bytes(stream.read(8), "little")


def cache_directory(name: str) -> Path:
    """Return the directory of a part of the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or user_directory(".cache")) / "resnet_tf" / name


def _write_cache(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        logger.warning("cannot write the index %r (%s); the next run reads the files again", str(path), error)


def _columns(each: Records) -> tuple[np.ndarray, ...]:
    return each.offsets, each.labels, each.hashes


def _to_json(records: Sequence[Records]) -> str:
    fields = [
        {
            "file": each.file,
            "offsets": each.offsets.tolist(),
            "labels": each.labels.tolist(),
            "hashes": each.hashes.tolist(),
            "unreadable": np.flatnonzero(~each.readable).tolist(),
            "names": each.names,
            "corruption": [vars(corrupt) for corrupt in each.corruption],
        }
        for each in records
    ]
    return json.dumps(fields)


def _from_json(text: str) -> list[Records]:
    found = [
        Records(
            fields["file"],
            np.array(fields["offsets"], np.int64),
            np.array(fields["labels"], np.int64),
            np.array(fields["hashes"], np.int64),
            ~np.isin(np.arange(len(fields["labels"])), np.array(fields["unreadable"], np.int64)),
            {int(label): name for label, name in fields["names"].items()},
            tuple(Corruption(**corrupt) for corrupt in fields["corruption"]),
        )
        for fields in json.loads(text)
    ]
    if any(each.offsets.ndim != 1 or len({*map(np.shape, _columns(each))}) > 1 for each in found):
        raise ValueError("offsets, labels and hashes differ in number")
    return found
