"""A moving average of the weights, BatchNorm's statistics among them."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


class WeightAverage:
    """An exponential moving average of a model's weights (Polyak and Juditsky 1992; Tan and Le 2019 for such networks).

    The decay grows with the steps, min(decay, (1 + step) / (10 + step)), as TensorFlow's ExponentialMovingAverage does:
    an average of few steps does not remember the random start. Make it inside the strategy's scope.

    Attributes:
        values: the averages, by the path of the model's variables.
    """

    def __init__(self, model: keras.Model, decay: float):
        self._decay = decay
        self._variables = model.weights
        self._averages = [  # of arrays, since Keras would adopt a tf.Variable instead of copying it
            keras.Variable(each.numpy(), trainable=False, dtype=each.dtype, name=f"average_{index}")
            for index, each in enumerate(self._variables)
        ]
        self.values = {each.path: average.value for each, average in zip(self._variables, self._averages, strict=True)}

    def update(self, step: tf.Tensor) -> None:
        """Take in the weights after a step, counted from 0; in a replica's context."""
        step = tf.cast(step, tf.float32)
        share = 1.0 - tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        for average, variable in zip(self._averages, self._variables, strict=True):
            average.value.assign_add((variable.value - average.value) * share)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights."""
        before = [tf.identity(variable.value) for variable in self._variables]
        for variable, average in zip(self._variables, self._averages, strict=True):
            variable.value.assign(tf.identity(average.value))
        try:
            yield
        finally:
            for variable, value in zip(self._variables, before, strict=True):
                variable.value.assign(value)
