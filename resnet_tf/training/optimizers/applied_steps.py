"""Number of steps that updated a variable, which bias corrections count."""

from typing import Any

import keras
import tensorflow as tf


class AppliedSteps:
    """Mixin for Keras optimizers: during an update, `iterations` counts the steps that updated the variable.

    These are the steps since the first one of a variable with a later one, and otherwise those that were not skipped.
    Bias corrections count them, as in PyTorch. Schedules read the variable itself.

    Attributes:
        first_step: first step of the variable that `update_step` updates; None outside of updates.
        skipped_steps: number of steps that changed no weights. It is none of the optimizer's variables, since the
            progress of the run stores it.
    """

    first_step: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.skipped_steps = tf.Variable(0, trainable=False, dtype=self.iterations.dtype, aggregation=first)

    def set_first_steps(self, steps: list[int]) -> None:
        """Set the first step that trains each variable."""
        self._first_steps = steps

    @property
    def iterations(self) -> Any:
        """Number of steps; during an update, only those that updated the variable."""
        if self.first_step is None:
            return super().iterations  # type: ignore[misc]
        return self._iterations - (self.first_step or self.skipped_steps)  # type: ignore[attr-defined]

    def _backend_update_step(self, *arguments: Any) -> None:
        self.first_step = 0
        try:
            super()._backend_update_step(*arguments)  # type: ignore[misc]
        finally:
            self.first_step = None

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """Update a variable, with its own number of steps as `iterations`."""
        self.first_step = self._first_steps[self._get_variable_index(variable)]  # type: ignore[attr-defined]
        try:
            super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]
        finally:
            self.first_step = 0
