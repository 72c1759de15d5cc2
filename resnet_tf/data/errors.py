"""Translation of TensorFlow's errors into user errors, around the loops that read a dataset."""

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from resnet_tf.core.errors import UserError


@contextlib.contextmanager
def translate_errors(explain: Callable[[tf.errors.OpError], str]) -> Iterator[None]:
    """Raise the errors of the block as a `UserError` where `explain` returns a message, otherwise unchanged.

    TensorFlow wraps whatever goes wrong in a dataset, Python exceptions included, in a `tf.errors.OpError`.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if message := explain(error):
            raise UserError(message) from error
        raise
