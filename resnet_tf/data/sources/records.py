"""TFRecord files with random access: offsets and labels are indexed in one pass and cached.

Format: length (uint64), its masked CRC32C (uint32), the data, its masked CRC32C (uint32); see TensorFlow's
`core/lib/io/record_writer.h`.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from resnet_tf.core.files import write_atomically
from resnet_tf.core.machine import cores
from resnet_tf.data.autotune import without_autotune
from resnet_tf.data.sources.base import Corruption, Split

logger = logging.getLogger(__name__)

_HEADER, _FRAME = 12, 16
# Smaller data sets are indexed in a second or two, without a cache.
_CACHED_FROM = 2**28
UNREADABLE = -1

# From a record to its label, int64, and the name of its class, string scalar, in graph operations.
Parse = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@dataclass(frozen=True)
class Records:
    """Records of one file, in order.

    Attributes:
        file: path of the file.
        offsets: offset of each record in bytes, int64 [N].
        labels: class indices, int64 [N]; -1 for an unreadable record.
        names: class name of each label.
        corruption: unreadable positions.
    """

    file: str
    offsets: np.ndarray
    labels: np.ndarray
    names: dict[int, str]
    corruption: tuple[Corruption, ...]


def read_at(file: tf.Tensor, offset: tf.Tensor) -> tf.data.Dataset:
    """Return a dataset of the record at a byte offset of a file, a string scalar, in graph operations."""
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[file], compression_type="", buffer_size=2**16, byte_offsets=[offset]
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(1)


def index(files: Sequence[str], parse: Parse, *, layout: str) -> list[Records]:
    """Index the records of each file.

    Args:
        files: paths of the files.
        parse: see `Parse`.
        layout: name of the layout that `parse` reads, for the cache.
    """
    sizes = {file: tf.io.gfile.stat(file) for file in files}
    total = sum(stat.length for stat in sizes.values())
    if total < _CACHED_FROM:
        return _scan_all(files, parse)
    key = json.dumps(["version 2", layout, [[file, stat.length, stat.mtime_nsec] for file, stat in sizes.items()]])
    cached = _cache() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if cached.is_file():
        try:
            return _from_json(cached.read_text())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            logger.warning("the index in %r is corrupt (%s) and written anew", str(cached), error)
    logger.info("reading %d record files (%.1f GB) once for their labels", len(files), total / 1e9)
    records = _scan_all(files, parse)
    _write_cache(cached, _to_json(records))
    return records


def split(
    name: str,
    parts: Sequence[tuple[Records, slice]],
    extract: Callable[[tf.Tensor], tf.Tensor],
    *,
    first_label: int = 0,
) -> Split:
    """Return the records of files, or slices of them, as a split.

    Args:
        name: name of the split.
        parts: files in order, each with the slice of its records that belongs to the split.
        extract: function from a record to the encoded image, in graph operations.
        first_label: subtracted from each label, so that labels start at 0.
    """
    files = [each.file for each, _ in parts]
    which = np.concatenate([np.full(len(each.labels[part]), number) for number, (each, part) in enumerate(parts)])
    offsets, labels = (
        np.concatenate([getattr(each, field)[part] for each, part in parts]) for field in ("offsets", "labels")
    )
    readable = labels != UNREADABLE
    which, offsets, labels = which[readable].astype(np.int64), offsets[readable], labels[readable] - first_label
    paths, whiches, starts = tf.constant(files), tf.constant(which), tf.constant(offsets)

    def stream(index: tf.Tensor) -> tf.data.Dataset:
        return read_at(paths[whiches[index]], starts[index]).map(extract)

    return Split(
        name,
        labels,
        load=lambda index: stream(index).get_single_element(),
        stream=stream,
        locate=lambda index: {"file": files[which[index]], "offset": int(offsets[index])},
        corruption=tuple(
            corruption for each, part in parts for corruption in each.corruption if _concerns(corruption, each, part)
        ),
    )


def _concerns(corruption: Corruption, found: Records, part: slice) -> bool:
    index = int(np.searchsorted(found.offsets, corruption.offset))
    return (part.start or 0) <= index and (part.stop is None or index < part.stop)


def _scan_all(files: Sequence[str], parse: Parse) -> list[Records]:
    """Index all files in parallel, ignoring errors; incomplete files are scanned again, record by record."""
    paths = tf.constant(list(files))

    def lengths_and_labels(which: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(paths[which])
        return records.map(lambda record: (which, tf.strings.length(record), *parse(record))).ignore_errors()

    dataset = tf.data.Dataset.range(len(files)).interleave(
        lengths_and_labels, cycle_length=16, block_length=64, num_parallel_calls=min(cores(), 16)
    )
    parts = list(without_autotune(dataset.batch(4096)).as_numpy_iterator())
    which, lengths, labels, names = (
        np.concatenate(arrays) for arrays in (zip(*parts, strict=True) if parts else ([[]],) * 4)
    )
    found = []
    for number, file in enumerate(files):
        own = which == number
        ends = np.cumsum(lengths[own].astype(np.int64) + _FRAME)
        if (ends[-1] if len(ends) else 0) == tf.io.gfile.stat(file).length:
            offsets = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
            found.append(Records(file, offsets, labels[own], _names(labels[own], names[own]), ()))
        else:
            found.append(_scan(file, parse))
    return found


def _names(labels: np.ndarray, names: np.ndarray) -> dict[int, str]:
    unique, first = np.unique(labels, return_index=True)
    return {int(label): names[index].decode() for label, index in zip(unique, first, strict=True)}


def _scan(file: str, parse: Parse) -> Records:
    """Index a corrupt file, skipping corrupt records, up to the first position without a record."""
    size, position = tf.io.gfile.stat(file).length, 0
    offsets, labels, corruption = [], [], []
    names: dict[int, str] = {}
    parse = tf.function(parse, input_signature=[tf.TensorSpec([], tf.string)])
    while position < size:
        record, reason = _try_read(file, position)
        if record is None:
            following = position + _stated_length(file, position) + _FRAME
            if following > size or (following < size and _try_read(file, following)[0] is None):
                corruption.append(Corruption(file, position, f"{reason}; the rest of the file is lost"))
                break
        else:
            following = position + len(record) + _FRAME
            try:
                label, name = (value.numpy() for value in parse(record))
                names.setdefault(int(label), name.decode())
            except tf.errors.InvalidArgumentError as error:
                record, reason = None, f"not the expected tf.train.Example ({error.message.splitlines()[0]})"
        if record is None:
            corruption.append(Corruption(file, position, reason))
        offsets.append(position)
        labels.append(UNREADABLE if record is None else int(label))
        position = following
    return Records(file, np.array(offsets, np.int64), np.array(labels, np.int64), names, tuple(corruption))


def _try_read(file: str, position: int) -> tuple[bytes | None, str]:
    try:
        return read_at(tf.constant(file), tf.constant(position, tf.int64)).get_single_element().numpy(), ""
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError, tf.errors.InvalidArgumentError):
        complete = position + _HEADER <= tf.io.gfile.stat(file).length
        return None, "the record's checksum is wrong or its end is missing" if complete else "the file is cut off here"


def _stated_length(file: str, position: int) -> int:
    with tf.io.gfile.GFile(file, "rb") as stream:
        stream.seek(position)
        return int.from_bytes(stream.read(8), "little")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resnet_tf" / "records"


def _write_cache(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        logger.warning("the index cannot be cached in %r (%s); the next start reads the files again", str(path), error)


def _to_json(records: Sequence[Records]) -> str:
    entries = [
        {
            "file": each.file,
            "offsets": each.offsets.tolist(),
            "labels": each.labels.tolist(),
            "names": each.names,
            "corruption": [vars(corruption) for corruption in each.corruption],
        }
        for each in records
    ]
    return json.dumps(entries)


def _from_json(text: str) -> list[Records]:
    return [
        Records(
            entry["file"],
            np.array(entry["offsets"], np.int64),
            np.array(entry["labels"], np.int64),
            {int(label): name for label, name in entry["names"].items()},
            tuple(Corruption(**corruption) for corruption in entry["corruption"]),
        )
        for entry in json.loads(text)
    ]
