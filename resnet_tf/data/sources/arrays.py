"""NumPy archives (.npz) of images or signals, with the array names of Keras or MedMNIST.

Names are `x_train`, `y_train`, `x_test`, `y_test`, or `train_images`, `train_labels`, `test_images`, `test_labels`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from resnet_tf.config import DataConfig
from resnet_tf.core.class_names import decode_name
from resnet_tf.core.errors import UserError
from resnet_tf.core.numpy_files import NpzArchive, open_npz
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.ranges import MAX_CLASSES
from resnet_tf.core.text import counted, printable
from resnet_tf.data.sources import slices
from resnet_tf.data.sources.base import DataSet, Source, Split, hash_parts
from resnet_tf.data.sources.labels import columns_to_labels, source_of_labels, source_of_names
from resnet_tf.inputs import input_type

logger = logging.getLogger(__name__)


def find_arrays(path: Path) -> DataSet:
    """Return the data set of an archive.

    Raises:
        UserError: if the archive is unreadable.
    """
    with open_npz(path) as archive:
        return DataSet(tuple(_list_splits(archive)), lambda config: _open(path, config))


def _open(path: Path, config: DataConfig) -> Source:
    """Open the splits of an archive.

    Images are uint8 [N, H, W] or [N, H, W, 1 or 3]; signals are floating-point [N, L] or [N, L, C]; see
    `Preprocess.check_archive`. Labels are integers [N] or [N, 1], or 0 and 1 in [N, classes] for any number of classes
    of each example. An optional array `class_names`, text [classes], names the labels; otherwise the classes are the
    labels that occur, or all columns.

    Raises:
        UserError: if the archive is unreadable, lacks a split, or has arrays of another shape, dtype or range.
    """
    with open_npz(path) as archive, Progress(f"reading {str(path)!r}"):
        present = _list_splits(archive)
        arrays = {name: _read(archive, path, name, config) for name in slices.plain_names(config.splits, present)}
        names = _read_names(archive, path)
    columns = {name: labels for name, (_, labels, _) in arrays.items() if labels.ndim > 1}
    if columns:
        if len(columns) < len(arrays):
            raise UserError(
                f"{str(path)!r}: labels of {next(iter(columns))!r} have a column for each class, others not"
            )
        names = names or tuple(map(str, range(next(iter(columns.values())).shape[1])))
        found = columns_to_labels(columns, str(path))
        arrays = {name: (examples, found[name], mark) for name, (examples, _, mark) in arrays.items()}
    warn_of_binary_pixels(path, [examples for examples, _, _ in arrays.values()])

    def open_split(name: str) -> Split:
        return array_split(path, name, *arrays[slices.plain_name(name)])

    splits = [slices.compose(name, present, open_split) for name in config.splits]
    if names:
        return source_of_names(str(path), splits, names)
    return source_of_labels(str(path), splits, np.concatenate([labels for _, labels, _ in arrays.values()]))


def _read_names(archive: NpzArchive, path: Path) -> tuple[str, ...]:
    if "class_names" not in archive:
        return ()
    names = archive["class_names"]
    if names.ndim != 1 or names.dtype.kind not in "USiu" or not 0 < len(names) <= MAX_CLASSES:
        raise UserError(f"class_names of {str(path)!r} is {names.dtype} {list(names.shape)}; expected text [classes]")
    return tuple(decode_name(name) if isinstance(name, bytes) else str(name) for name in names)


def _read(archive: NpzArchive, path: Path, split: str, config: DataConfig) -> tuple[np.ndarray, np.ndarray, str]:
    """Return examples, labels and the fingerprint of a split."""
    for keys in ((f"x_{split}", f"y_{split}"), (f"{split}_images", f"{split}_labels")):
        if set(keys) <= set(archive):
            examples, labels = (archive[key] for key in keys)
            break
    else:
        raise UserError(
            f"{str(path)!r} has no x_{split} and y_{split}, nor {split}_images and {split}_labels; it has "
            f"{', '.join(archive)}; {slices.advise(config, split, _list_splits(archive))}"
        )
    examples = input_type(config).check_archive(examples, f"{keys[0]} of {str(path)!r}", config)
    flat = labels.reshape(-1) if labels.ndim and labels.size == len(labels) else labels
    if examples.size and labels.ndim == 2 and len(labels) == len(examples) and 1 < labels.shape[1] <= MAX_CLASSES:
        if labels.dtype.kind not in "biuf":
            raise UserError(f"{keys[1]} of {str(path)!r} is {labels.dtype} {list(labels.shape)}; expected 0 and 1")
        return examples, labels, hash_parts(map(archive.checksum, keys))
    if not examples.size or flat.shape != examples.shape[:1] or not _are_integers(flat):
        raise UserError(
            f"{keys[1]} of {str(path)!r} is {labels.dtype} {list(labels.shape)}; expected non-negative integers, one "
            f"for each of the {counted(len(examples), 'example')}, or 0 and 1 in a column for each class"
        )
    return examples, flat.astype(np.int64), hash_parts(map(archive.checksum, keys))


def _list_splits(archive: NpzArchive) -> list[str]:
    """Return the splits of which an archive has examples and labels."""
    pairs = (("x_{}", "y_{}"), ("{}_images", "{}_labels"))
    words = {word for key in archive for word in (key.removeprefix("x_"), key.removesuffix("_images"))}
    return sorted(word for word in words if any({each.format(word) for each in pair} <= set(archive) for pair in pairs))


def _are_integers(values: np.ndarray) -> bool:
    return values.dtype.kind in "iu" and values.size > 0 and values.max() < 2**63


def warn_of_binary_pixels(path: Path, arrays: Sequence[np.ndarray]) -> None:
    """Log a warning if all images of a data set are almost black, because 0 and 1 are taken for 0 and 255.

    Args:
        path: file or folder, for the message.
        arrays: examples of each split.
    """
    if all(array.dtype == np.uint8 for array in arrays) and max(array.max() for array in arrays) == 1:
        logger.warning(
            "%s",
            printable(
                f"all pixels of {str(path)!r} are 0 or 1, which is almost black in 8 bits; store black and white as 0 "
                "and 255, or set data.mean and data.std to those of pixels / 255"
            ),
        )


def array_split(path: Path, name: str, examples: np.ndarray, labels: np.ndarray, fingerprint: str) -> Split:
    """Return a split of examples in memory.

    Args:
        path: file that the examples come from, for messages.
        name: name of the split, or of a part, such as `train[:90%]`.
        examples: images uint8 [N, H, W, 1 or 3], or signals float32 [N, L, C].
        labels: see `Split`.
        fingerprint: result of `Split.fingerprint`.

    Raises:
        UserError: if `name` is not a valid part.
    """
    part, plain = slices.part(name, len(labels)), slices.plain_name(name)
    with tf.device("CPU"):
        tensor = tf.constant(examples[part])
    return Split(
        name,
        labels[part],
        load=lambda index: tensor[index],
        locate=lambda index: {"file": str(path), "split": plain, "index": part.start + index},
        fingerprint=lambda: fingerprint,
    )
