"""NumPy archive: `x_train`, `y_train`, `x_test`, `y_test` as in Keras, or `train_images`, `train_labels`, ..."""

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
    """Open an archive of images, uint8 [N, H, W] or [N, H, W, 1 or 3], and integer labels [N] or [N, 1].

    Other input types define their arrays in `check_archive`: signals are floating-point numbers [N, length] or
    [N, length, channels]. An optional `class_names`, text [C], names the labels 0 to C - 1.

    Raises:
        UserError: for a corrupt archive, missing arrays, or arrays of other shapes or dtypes.
    """
    try:
        with np.load(path) as archive:  # pickles are refused
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
    name = f"{keys[0]} of {str(path)!r}"
    examples = input_type(config).check_archive(examples, name, config)
    flat = labels.reshape(-1) if labels.size == len(labels) else labels
    if len(labels) != len(examples) or flat.ndim != 1 or flat.dtype.kind not in "iu" or not flat.size or flat.min() < 0:
        raise UserError(
            f"{keys[1]} of {str(path)!r} is {labels.dtype} {list(labels.shape)}; labels are whole numbers from 0 on, "
            f"one for each of the {len(examples)} examples"
        )
    return examples, flat.astype(np.int64)


def array_split(path: Path, name: str, examples: np.ndarray, labels: np.ndarray) -> Split:
    """Return a split of arrays.

    Args:
        path: file of the arrays, for error messages.
        name: name of the split, also of a part, such as `train[:90%]`.
        examples: images, uint8 [N, H, W, 1 or 3], or signals, float32 [N, L, C].
        labels: int64 [N].
    """
    part = slices.part(name, len(labels))
    with tf.device("CPU"):
        kept = tf.constant(examples[part])
    return Split(
        name,
        labels[part],
        load=lambda index: kept[index],
        locate=lambda index: {"file": str(path), "index": part.start + index},
    )
