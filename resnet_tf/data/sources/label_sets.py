"""Sets of classes in an index of records, which holds a number and a name for each record."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from resnet_tf.core.errors import UserError
from resnet_tf.core.text import counted
from resnet_tf.data.sources.base import Split

_SEPARATOR = ","


def encode(classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a number, an int64 scalar, and a name, a string scalar, of a set of classes, int64 [n].

    The name lists the classes, and the number is its hash.
    """
    name = tf.strings.reduce_join(tf.strings.as_string(tf.sort(classes)), separator=_SEPARATOR)
    return tf.strings.to_hash_bucket_fast(name, 2**63 - 1), name


def decode(split: Split, names: Mapping[int, str], num_classes: int) -> Split:
    """Return a split with multi-label targets, bool [N, C], in place of the numbers of `encode`.

    Args:
        split: split with numbers as labels.
        names: name of each number.
        num_classes: number of classes C.

    Raises:
        UserError: for a class outside [0, C), naming the file of the first example that has it.
    """
    numbers, owners = np.unique(split.labels, return_inverse=True)
    rows = np.zeros((len(numbers), num_classes), bool)
    for row, number in enumerate(numbers.tolist()):
        classes = [int(each) for each in names[number].split(_SEPARATOR) if each]
        if wrong := [each for each in classes if not 0 <= each < num_classes]:
            file = split.locate(int(np.argmax(owners == row)))["file"]
            raise UserError(f"split {split.name!r}: {file!r} has label {wrong[0]}, but {counted(num_classes, 'class')}")
        rows[row, classes] = True
    return dataclasses.replace(split, labels=rows[owners])
