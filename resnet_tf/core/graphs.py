"""Functions in graph operations."""

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

_Function = TypeVar("_Function", bound=Callable[..., Any])


def without_autograph(function: _Function) -> _Function:
    """Return a function that TensorFlow traces as it is written, and all functions that it calls.

    AutoGraph would rewrite each of them from its source, which takes longer than the trace. Control flow that depends
    on tensors is therefore written with `tf.cond`, `tf.switch_case` and `tf.while_loop`.
    """
    return tf.autograph.experimental.do_not_convert(function)
