"""Random access to encoded images in Parquet files: small tables in memory, others through a cache of records.

A Parquet file stores compressed groups of rows: to read one image, a reader would decompress all of its group.
"""

import dataclasses
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from resnet_tf.core import locks
from resnet_tf.core.errors import UserError, plain_reason, write_failure
from resnet_tf.core.files import atomic_directory, make_directory
from resnet_tf.core.progress_line import Progress
from resnet_tf.data.sources import records
from resnet_tf.data.sources.base import Split, hash_parts
from resnet_tf.data.sources.tables.files import Table, check_size, open_column

logger = logging.getLogger(__name__)

_IN_MEMORY = 2**28  # bytes of encoded images; larger tables are copied to records
_BATCH, _BATCH_BYTES = 64, 2**28  # rows that are read at once, and their largest size in memory


def open_images(table: Table, column: str, labels: np.ndarray) -> Split:
    """Return a split of all rows of a table, in order.

    Args:
        table: table of Parquet files.
        column: column of encoded images.
        labels: labels of the rows, int64 [N] or bool [N, C].

    Raises:
        UserError: for rows without an image, corrupt files, or a cache that cannot be written.
    """
    encoded = _read_small(table, column)
    return _open_cached(table, column, labels) if encoded is None else _open_in_memory(table, encoded, labels)


def _read_small(table: Table, column: str) -> list[bytes] | None:
    """Return all images; None if they are too large, of which the claimed size counts repeated images once."""
    if _size(table, column) > _IN_MEMORY:
        return None
    images, total = [], 0
    for image in itertools.chain.from_iterable(_read(file, column) for file in table.files):
        images.append(image)
        total += len(image)
        if total > _IN_MEMORY:
            return None
    return images


def _open_in_memory(table: Table, encoded: list[bytes], labels: np.ndarray) -> Split:
    with tf.device("CPU"):
        images = tf.constant(encoded)
        hashes = tf.strings.to_hash_bucket_fast(images, 2**63 - 1).numpy()
    return Split(
        "all",
        labels,
        load=lambda index: images[index],
        locate=_locator(table),
        hashes=hashes,
        fingerprint=lambda: hash_parts([hashes.tobytes()]),
    )


def _open_cached(table: Table, column: str, labels: np.ndarray) -> Split:
    """Open the records with the images of a large table, which are written when it is opened for the first time."""
    files = [str(path) for path in _cache_files(table, column)]
    indexed = records.index(
        files, lambda record: (tf.constant(0, tf.int64), tf.constant(""), record), layout="images of tables"
    )
    split = records.split("all", [(each, slice(None)) for each in indexed], lambda record: record)
    if split.num_examples != table.num_rows or split.corruption:
        raise UserError(f"the cache {str(Path(files[0]).parent)!r} is corrupt; delete it, and start the command again")
    hashes = split.hashes
    assert hashes is not None
    return dataclasses.replace(
        split, labels=labels, locate=_locator(table), fingerprint=lambda: hash_parts([hashes.tobytes()])
    )


def select_rows(split: Split, name: str, rows: np.ndarray) -> Split:
    """Return the split of some rows of `open_images`, under a name."""
    found = split.select(rows)
    hashes = found.hashes
    assert hashes is not None
    return dataclasses.replace(found, name=name, fingerprint=lambda: hash_parts([hashes.tobytes()]))


def _locator(table: Table) -> Any:
    ends = np.cumsum(table.file_rows)

    def locate(index: int) -> dict[str, Any]:
        number = int(np.searchsorted(ends, index, side="right"))
        return {"file": table.files[number], "row": index - int(ends[number]) + table.file_rows[number] + 1}

    return locate


def _size(table: Table, column: str) -> int:
    """Return the uncompressed bytes of a column in all files, as they claim it."""
    total = 0
    for file in table.files:
        metadata = pq.read_metadata(file)
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            chunks = map(group.column, range(group.num_columns))
            total += sum(each.total_uncompressed_size for each in chunks if each.path_in_schema.split(".")[0] == column)
    return total


def _read(file: str, column: str) -> Iterator[bytes]:
    """Yield the images of one file, a few rows in memory at a time.

    Raises:
        UserError: for a row without an image, or a corrupt file, or one of much more content than it can hold.
    """
    row = total = 0
    stored = os.path.getsize(file)
    try:
        reader, largest = open_column(file, column, nested=False)
        # A row may repeat a value of any length up to that of a page.
        for batch in reader.iter_batches(max(1, min(_BATCH, _BATCH_BYTES // max(largest, 1))), columns=[column]):
            values = batch.column(0)
            values = pc.struct_field(values, "bytes") if pa.types.is_struct(values.type) else values
            for value in values:
                row += 1
                if not value.is_valid:
                    raise UserError(f"{file!r} has no image in row {row:,}")
                image = value.as_py()
                total += len(image)
                check_size(file, total, stored)
                yield image
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {file!r}: {plain_reason(error)}") from error


def _cache_files(table: Table, column: str) -> list[Path]:
    """Return the record files of the images, one for each file of the table; write them if they are missing."""
    stats = [[os.path.abspath(file), os.path.getsize(file), os.stat(file).st_mtime_ns] for file in table.files]
    key = hashlib.sha256(json.dumps([column, stats]).encode()).hexdigest()[:32]
    directory = records.cache_directory("tables") / key
    found = [directory / f"{number:05}.tfrecord" for number in range(len(table.files))]
    if directory.is_dir():
        return found
    try:
        make_directory(directory.parent)
        lock = locks.acquire(directory.parent, wait=True)
        try:
            if not directory.is_dir():  # written by another process in the meantime
                _write_cache(table, column, directory)
        finally:
            locks.release(lock)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"the images of {str(table.path)!r} cannot be copied to {str(directory)!r}: {write_failure(error)}. "
            "XDG_CACHE_HOME names another directory, and `prepare` writes records to any"
        ) from error
    return found


def _write_cache(table: Table, column: str, directory: Path) -> None:
    size = f"{_size(table, column) / 1e9:.1f} GB"
    logger.info("copying the images of %r (%s) to records in %r, once", str(table.path), size, str(directory))
    task = f"copying the images of {str(table.path)!r}"
    with atomic_directory(directory) as staging, Progress(task, noun="image", total=table.num_rows) as progress:
        for number, file in enumerate(table.files):
            with tf.io.TFRecordWriter(str(staging / f"{number:05}.tfrecord")) as writer:
                for image in _read(file, column):
                    writer.write(image)
                    progress.done += 1
