"""Branches of conditions that TensorFlow instantiates only when they run."""

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

_Result = TypeVar("_Result")


def deferred(branch: Callable[[], _Result]) -> Callable[[], _Result]:
    """Return a branch for `tf.cond` or `tf.switch_case` that rarely runs, as a function that is not inlined.

    TensorFlow inlines the branches of a condition, and optimizes and instantiates all of them before a graph runs for
    the first time. A function that is not inlined is instantiated by its first call, so that the decoders of formats
    that do not occur take no time. Each call takes some microseconds longer.
    """
    return tf.function(branch, autograph=False, experimental_attributes={"_noinline": True})
