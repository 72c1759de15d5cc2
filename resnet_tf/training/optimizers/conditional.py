"""Updates of an optimizer that depend on a condition and stay on the device."""

from typing import Any

import keras
import tensorflow as tf


def apply_if(
    optimizer: keras.optimizers.Optimizer,
    condition: tf.Tensor,
    gradients: list[tf.Tensor],
    variables: list[keras.Variable],
) -> None:
    """Update variables if a condition is true, and count the step in any case; call it in replica context.

    The scale of a `LossScaleOptimizer` is halved if it is false, and doubled after many steps in which it is true.

    Args:
        optimizer: of `create_optimizer`.
        condition: bool scalar, equal on all replicas. The gradients need not be finite where it is false.
        gradients: sums over the replicas, multiplied by the loss scale.
        variables: variables of the gradients.
    """
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer.apply_if(condition, gradients, variables)
        return
    scale, steps = optimizer.dynamic_scale, optimizer.step_counter
    optimizer.inner_optimizer.apply_if(condition, [each / scale.value for each in gradients], variables)
    grown = steps.value == optimizer.dynamic_growth_steps - 1
    factor = tf.where(condition, tf.where(grown, 2.0, 1.0), 0.5)
    _assign(scale, scale.value * factor)
    _assign(steps, tf.where(condition & ~grown, steps.value + 1, 0))


def _assign(variable: keras.Variable, value: tf.Tensor) -> None:
    """Assign the value of each replica, also to a variable without aggregation."""

    def update(strategy: tf.distribute.Strategy, value: tf.Tensor) -> None:
        strategy.extended.update(variable.value, lambda each, new: each.assign(new), args=(value,), group=False)

    tf.__internal__.distribute.interim.maybe_merge_call(update, tf.distribute.get_strategy(), value)


class ConditionalUpdates:
    """Mixin for Keras optimizers: `apply_if` selects between the new and the old value of every variable.

    `tf.cond` has the same results. But its condition is read by the host, which would wait for a GPU in every step, and
    it must not contain the `merge_call` with which Keras updates the variables of a `MirroredStrategy`. A selection is
    fused with the update by XLA, and without XLA costs one more pass over the variables.
    """

    _condition: tf.Tensor | None = None

    def apply_if(self, condition: tf.Tensor, gradients: list[tf.Tensor], variables: list[keras.Variable]) -> None:
        """Update the variables if the condition is true; count the step in any case.

        Args:
            condition: bool scalar, equal on all replicas. The gradients need not be finite where it is false.
            gradients: see `keras.Optimizer.apply`.
            variables: variables of the gradients.
        """
        self._condition = condition
        try:
            self.apply(gradients, variables)  # type: ignore[attr-defined]
        finally:
            self._condition = None

    def assign(self, variable: Any, value: tf.Tensor) -> None:
        """Assign a value if the condition holds; like the following methods, Keras's update rules call it."""
        super().assign(variable, self._select(variable, value))  # type: ignore[misc]

    def assign_add(self, variable: Any, value: tf.Tensor) -> None:
        """Add a value if the condition holds."""
        if self._condition is None:
            super().assign_add(variable, value)  # type: ignore[misc]
        else:
            self.assign(variable, variable + tf.cast(value, variable.dtype))

    def assign_sub(self, variable: Any, value: tf.Tensor) -> None:
        """Subtract a value if the condition holds."""
        if self._condition is None:
            super().assign_sub(variable, value)  # type: ignore[misc]
        else:
            self.assign(variable, variable - tf.cast(value, variable.dtype))

    def _select(self, variable: Any, value: tf.Tensor) -> tf.Tensor:
        if self._condition is None:
            return value
        return tf.where(self._condition, tf.cast(value, variable.dtype), variable)

    def _backend_update_step(
        self, gradients: list[tf.Tensor], variables: list[keras.Variable], learning_rate: tf.Tensor
    ) -> None:
        # The condition of each replica travels with its learning rate through the merge call.
        scalars = learning_rate if self._condition is None else (learning_rate, self._condition)
        super()._backend_update_step(gradients, variables, scalars)  # type: ignore[misc]

    def _distributed_tf_update_step(self, distribution: Any, pairs: list[Any], scalars: Any) -> None:
        if self._condition is None:
            super()._distributed_tf_update_step(distribution, pairs, scalars)  # type: ignore[misc]
            return

        def update(variable: Any, gradient: tf.Tensor, learning_rate: tf.Tensor, condition: tf.Tensor) -> None:
            self._condition = condition
            self.update_step(gradient, variable, learning_rate)  # type: ignore[attr-defined]

        for gradient, variable in pairs:
            distribution.extended.update(variable, update, args=(gradient, *scalars), group=False)
