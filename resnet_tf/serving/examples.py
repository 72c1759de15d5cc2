"""Forms in which a predictor takes examples: files, bytes, PIL images and arrays."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.inputs import Preprocess, is_pil_image


@dataclass(frozen=True)
class Example:
    """An example as the content of a file.

    Attributes:
        content: of the file.
        name: for error messages.
        file: path; empty for an example in memory.
    """

    content: bytes
    name: str
    file: str = ""


def is_single(examples: Any, preprocess: Preprocess) -> bool:
    """Return whether an object is one example, and not several."""
    if isinstance(examples, str | os.PathLike | bytes | bytearray) or is_pil_image(examples):
        return True
    if hasattr(examples, "__array__"):
        return np.ndim(examples) <= len(preprocess.unnormalized_shape)
    return not isinstance(examples, Iterable)


def batches(examples: Iterable[Any], preprocess: Preprocess, size: int) -> Iterator[list[Example]]:
    """Yield `size` examples at a time.

    Raises:
        UserError: for a file that cannot be read, or an object of another type or shape, by its index.
    """
    read = (_read(example, index, preprocess) for index, example in enumerate(examples))
    while batch := list(islice(read, size)):
        yield batch


def _read(example: Any, index: int, preprocess: Preprocess) -> Example:
    if not isinstance(example, str | os.PathLike):
        name = f"{preprocess.noun} {index}"
        try:
            return Example(preprocess.encode(example), name)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    try:
        return Example(Path(example).read_bytes(), repr(str(example)), str(example))
    except OSError as error:
        raise UserError(f"cannot read {str(example)!r}: {error.strerror}") from error
