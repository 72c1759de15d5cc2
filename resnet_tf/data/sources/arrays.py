"""NumPy archives (.npz) of images or signals, with the array names of Keras or MedMNIST.

Names are `x_train`, `y_train`, `x_test`, `y_test`, or `train_images`, `train_labels`, `test_images`, `test_labels`.
"""

import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import slices
from resnet_tf.data.sources.base import Source, Split
from resnet_tf.inputs import input_type


def open_arrays(path: Path, config: DataConfig) -> Source:
    """Open the splits of an archive.

    Images are uint8 [N, H, W] or [N, H, W, 1 or 3]; signals are floating-point [N, L] or [N, L, C]; see
    `Preprocess.check_archive`. Labels are integers [N] or [N, 1]. An optional array `class_names`, text [classes],
    names the labels; otherwise names are the numbers.

    Raises:
        UserError: if the archive is unreadable, lacks a split, or has arrays of another shape, dtype or range.
    """
    try:
        with np.load(path) as archive:  # rejects pickled objects
            splits = [(name, *_read(archive, path, name, config)) for name in config.splits]
            names = tuple(map(str, archive["class_names"])) if "class_names" in archive else ()
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {str(path)!r}: {error}") from error
    largest = int(max(labels.max() for _, _, labels in splits))
    names = names or tuple(str(label) for label in range(largest + 1))
    if largest >= len(names):
        raise UserError(f"{str(path)!r} has label {largest}, but class_names has {len(names)} names")
    return Source(str(path), names, *(array_split(path, *split) for split in splits))


def _read(archive: np.lib.npyio.NpzFile, path: Path, name: str, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    split = slices.plain_name(name)
    for keys in ((f"x_{split}", f"y_{split}"), (f"{split}_images", f"{split}_labels")):
        if set(keys) <= set(archive):
            examples, labels = (archive[key] for key in keys)
            break
    else:
        raise UserError(
            f"{str(path)!r} has no x_{split} and y_{split}, nor {split}_images and {split}_labels; it has "
            f"{', '.join(archive)}. data.train_split, data.eval_split and data.test_split name the splits"
        )
    examples = input_type(config).check_archive(examples, f"{keys[0]} of {str(path)!r}", config)
    flat = labels.reshape(-1) if labels.size == len(labels) else labels
    if len(labels) != len(examples) or flat.ndim != 1 or flat.dtype.kind not in "iu" or not flat.size or flat.min() < 0:
        raise UserError(
            f"{keys[1]} of {str(path)!r} is {labels.dtype} {list(labels.shape)}; expected non-negative integers, one "
            f"for each of the {len(examples)} examples"
        )
    return examples, flat.astype(np.int64)


def array_split(path: Path, name: str, examples: np.ndarray, labels: np.ndarray) -> Split:
    """Return a split of examples in memory.

    Args:
        path: file that the examples come from, for messages.
        name: name of the split, or of a part, such as `train[:90%]`.
        examples: images uint8 [N, H, W, 1 or 3], or signals float32 [N, L, C].
        labels: int64 [N].

    Raises:
        UserError: if `name` is not a valid part.
    """
    part = slices.part(name, len(labels))
    with tf.device("CPU"):
        tensor = tf.constant(examples[part])
    return Split(
        name,
        labels[part],
        load=lambda index: tensor[index],
        locate=lambda index: {"file": str(path), "index": part.start + index},
    )
