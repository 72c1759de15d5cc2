"""One pass over the examples of a data set: content hashes, thumbnails, sizes, formats and measures of quality."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from resnet_tf.core.progress_line import Progress
from resnet_tf.data.audit.measures import MEASURED_SIZE, MEASURES, measure
from resnet_tf.data.autotune import without_autotune
from resnet_tf.data.sources import Split
from resnet_tf.data.unreadable import explain_unreadable
from resnet_tf.inputs import ImagePreprocess, headers

THUMBNAIL = 32  # pixels; the size of CIFAR images, at which objects can be recognized
FORMATS = ("JPEG", *headers.FORMATS)
ARRAY = -1  # format of examples that are arrays
UPRIGHT = 1  # EXIF orientation

_BATCH = 256
_IN_MEMORY = 2**28  # bytes; larger arrays are files


@dataclass(frozen=True, eq=False)
class Scan:
    """Properties of the N examples of a split; those of unreadable examples are zero, and their measures NaN.

    Attributes:
        readable: True for examples that can be decoded, bool [N].
        reasons: index of each unreadable example -> reason.
        hashes: hash of the decoded pixels, uint64 [N].
        sizes: (height, width) of the upright image in pixels, int32 [N, 2].
        formats: index in `FORMATS`, or `ARRAY`, int8 [N].
        orientations: EXIF orientation, 1 (upright) to 8, int8 [N].
        measures: see `measures.measure`, float32 [N, M].
        thumbnails: images resized to a square without regard to their aspect ratio, uint8 [N, 32, 32, 3].
    """

    readable: np.ndarray
    reasons: dict[int, str]
    hashes: np.ndarray
    sizes: np.ndarray
    formats: np.ndarray
    orientations: np.ndarray
    measures: np.ndarray
    thumbnails: np.ndarray


def allocate(directory: Path, name: str, shape: Sequence[int], dtype: type) -> np.ndarray:
    """Return an array of zeros: a new file in a directory if it is large, so that memory is bounded."""
    if math.prod(shape) * np.dtype(dtype).itemsize < _IN_MEMORY:
        return np.zeros(shape, dtype)
    return np.memmap(directory / name, dtype, "w+", shape=tuple(shape))


def scan(split: Split, preprocess: ImagePreprocess, directory: Path) -> Scan:
    """Decode each example of a split once, and return its properties.

    Args:
        split: examples, images in files or arrays.
        preprocess: decodes them; `exif_orientation` rotates them upright.
        directory: of temporary files, see `allocate`.
    """
    count = split.num_examples
    found = Scan(
        readable=np.zeros(count, bool),
        reasons={},
        hashes=np.zeros(count, np.uint64),
        sizes=np.zeros((count, 2), np.int32),
        formats=np.full(count, ARRAY, np.int8),
        orientations=np.full(count, UPRIGHT, np.int8),
        measures=np.full((count, len(MEASURES)), np.nan, np.float32),
        thumbnails=allocate(directory, "thumbnails", (count, THUMBNAIL, THUMBNAIL, 3), np.uint8),
    )

    def describe(position: tf.Tensor, example: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"position": position, **_describe(example, preprocess)}

    dataset = split.map(tf.range(count, dtype=tf.int64), describe).ignore_errors(log_warning=False).batch(_BATCH)
    with Progress("reading the images", noun="image", total=count) as progress:
        for batch in without_autotune(dataset.prefetch(1)).as_numpy_iterator():
            _store(found, batch)
            progress.done += len(batch["position"])
    for index in np.flatnonzero(~found.readable).tolist():
        found.reasons[index] = explain_unreadable(split, preprocess, index)
    return found


def _describe(example: tf.Tensor, preprocess: ImagePreprocess) -> dict[str, tf.Tensor]:
    """Return the properties of one example, in graph operations."""
    image = preprocess.decode(example)
    size = tf.shape(image)[:2]
    ratio = tf.minimum(1.0, MEASURED_SIZE / tf.cast(tf.reduce_max(size), tf.float32))
    measured_size = tf.maximum(tf.cast(tf.cast(size, tf.float32) * ratio, tf.int32), 1)
    measured = _resize(image, measured_size)
    is_array = example.dtype != tf.string
    return {
        "hash": tf.bitcast(tf.raw_ops.Fingerprint(data=tf.reshape(image, [1, -1]), method="farmhash64")[0], tf.uint64),
        "size": size,
        "format": tf.constant(ARRAY) if is_array else _format(example),
        "orientation": tf.constant(UPRIGHT) if is_array else _orientation(example),
        "measured": tf.image.pad_to_bounding_box(measured, 0, 0, MEASURED_SIZE, MEASURED_SIZE),
        "measured_size": measured_size,
        "thumbnail": _resize(image, tf.constant([THUMBNAIL, THUMBNAIL])),
    }


def _resize(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    resized = tf.image.resize(image, size, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def _format(example: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.io.is_jpeg(example), lambda: 0, lambda: 1 + headers.non_jpeg_format(example))


def _orientation(example: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.io.is_jpeg(example), lambda: headers.exif_orientation(example), lambda: UPRIGHT)


def _store(found: Scan, batch: dict[str, np.ndarray]) -> None:
    """Store the properties of a batch, and measure its images, those of one size at once."""
    positions = batch["position"]
    found.readable[positions] = True
    found.hashes[positions] = batch["hash"]
    found.sizes[positions] = batch["size"]
    found.formats[positions] = batch["format"]
    found.orientations[positions] = batch["orientation"]
    found.thumbnails[positions] = batch["thumbnail"]
    for height, width in np.unique(batch["measured_size"], axis=0):
        chosen = (batch["measured_size"] == (height, width)).all(axis=1)
        found.measures[positions[chosen]] = measure(batch["measured"][chosen, :height, :width])
