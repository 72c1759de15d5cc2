"""Exponential moving average of the weights and BatchNorm statistics."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


class WeightAverage:
    """Exponential moving average of the weights of a model (Polyak and Juditsky 1992; Tan and Le 2019).

    The decay grows with the steps, min(decay, (1 + step) / (10 + step)), as in TensorFlow's ExponentialMovingAverage,
    so that an average of few steps does not keep the random initialization. Create it inside the strategy's scope.

    Attributes:
        values: path of a variable of the model -> average.
    """

    def __init__(self, model: keras.Model, decay: float):
        self._decay = decay
        self._variables = model.weights
        self._averages = [  # from arrays: Keras would adopt a tf.Variable instead of copying it
            keras.Variable(each.numpy(), trainable=False, dtype=each.dtype, name=f"average_{index}")
            for index, each in enumerate(self._variables)
        ]
        self.values = {each.path: average.value for each, average in zip(self._variables, self._averages, strict=True)}

    def update(self, step: tf.Tensor, condition: tf.Tensor | None = None) -> None:
        """Update the averages after a step, counted from 0, unless `condition` is false; call it in replica context."""
        step = tf.cast(step, tf.float32)
        weight = 1.0 - tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        for average, variable in zip(self._averages, self._variables, strict=True):
            change = (variable.value - average.value) * weight
            average.assign_add(change if condition is None else tf.where(condition, change, 0.0))

    def set_from_model(self) -> None:
        """Set the averages to the present weights of the model."""
        for average, variable in zip(self._averages, self._variables, strict=True):
            average.value.assign(tf.identity(variable.value))

    @contextlib.contextmanager
    def swap_weights(self) -> Iterator[None]:
        """Replace the weights of the model by their averages within the context."""
        before = [tf.identity(variable.value) for variable in self._variables]
        for variable, average in zip(self._variables, self._averages, strict=True):
            variable.value.assign(tf.identity(average.value))
        try:
            yield
        finally:
            for variable, value in zip(self._variables, before, strict=True):
                variable.value.assign(value)
