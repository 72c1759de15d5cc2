"""Example formats of a predictor: paths, bytes, PIL images and arrays."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from resnet_tf.core.errors import UserError, prefix_errors
from resnet_tf.core.paths import user_path
from resnet_tf.core.ranges import MAX_BATCH, check_integer
from resnet_tf.inputs import Preprocess, is_pil_image


@dataclass(frozen=True)
class Example:
    """An encoded example.

    Attributes:
        content: content of a file.
        name: name in error messages.
        file: path of the file; empty for an example in memory.
    """

    content: bytes
    name: str
    file: str = ""


def is_single(examples: Any, preprocess: Preprocess) -> bool:
    """Return True for one example, False for several."""
    if isinstance(examples, str | os.PathLike | bytes | bytearray) or is_pil_image(examples):
        return True
    if hasattr(examples, "__array__"):
        is_list = np.ndim(examples) == 1 and np.asarray(examples).dtype.kind in "OUS"  # of paths, bytes or arrays
        return np.ndim(examples) <= len(preprocess.unnormalized_shape) and not is_list
    return not isinstance(examples, Iterable)


def batches(examples: Iterable[Any], preprocess: Preprocess, batch_size: int) -> Iterator[list[Example]]:
    """Yield lists of `batch_size` encoded examples; the last list may be shorter.

    Raises:
        UserError: for a file that cannot be read, or for an object of another type or shape, with its index.
    """
    check_integer("batch_size", batch_size, minimum=1, maximum=MAX_BATCH)
    encoded = (_encode(example, index, preprocess) for index, example in enumerate(examples))
    while batch := list(islice(encoded, batch_size)):
        yield batch


def _encode(example: Any, index: int, preprocess: Preprocess) -> Example:
    if not isinstance(example, str | os.PathLike):
        name = f"{preprocess.noun} {index}"
        with prefix_errors(name):
            return Example(preprocess.encode(example), name)
    try:
        return Example(user_path(example).read_bytes(), repr(str(example)), str(example))
    except OSError as error:
        raise UserError(f"cannot read {str(example)!r}: {error.strerror}") from error
