"""One training step under any strategy: gradients over the global batch, a look whether they are finite, the update."""

from typing import Any

import keras
import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.data import mixing, preprocess
from resnet_tf.spec import Preprocess
from resnet_tf.training.average import WeightAverage
from resnet_tf.training.objective import Objective

# What a step tells, float32 [4]: the sum of the losses over the global batch, how many of its answers were right, the
# norm of the gradient before clipping, and 1 for a bad step: skipped, and not for a loss scale that can still shrink.
FIGURES = ("loss", "right", "gradient_norm", "bad")


class TrainStep:
    """Compiles the steps of a run. A step whose loss or gradient is not finite changes nothing but the step's number.

    Args:
        config: its `train.accumulate`, `optimizer.clip_norm`, `augment` and `runtime.xla` count.
        model: built inside the scope of `strategy`, as the others.
        optimizer: see `create_optimizer`.
        objective: the loss.
        average: updated after every step, if given.
        strategy: what the step runs under.
        spec: how pixels become the model's input.
    """

    def __init__(
        self,
        config: Config,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        objective: Objective,
        average: WeightAverage | None,
        strategy: tf.distribute.Strategy,
        spec: Preprocess,
    ):
        self._config, self._spec, self._strategy = config, spec, strategy
        self._model, self._optimizer, self._objective, self._average = model, optimizer, objective, average
        self._replicas = strategy.num_replicas_in_sync
        self._gradients = tf.function(self.gradients, jit_compile=True) if config.runtime.xla else self.gradients
        self.run = tf.function(self._run)

    def _run(self, iterator: Any, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Take `count` steps on the next batches: `FIGURES` of each, [count, 4], and the examples that were missing."""
        strategy = self._strategy
        figures, unreadable = tf.TensorArray(tf.float32, count), tf.TensorArray(tf.int64, count)
        for step in tf.range(count):
            images, labels, missing, *mix = next(iterator)
            gradients, state, told = strategy.run(self._differentiate, args=(images, labels, *mix))
            row = strategy.experimental_local_results(told)[0]  # the same on all
            if tf.reduce_all(tf.math.is_finite(row)):
                strategy.run(self._update, args=(gradients, state, told))
            else:
                strategy.run(self._skip)
            figures = figures.write(step, row)
            unreadable = unreadable.write(step, tf.concat(strategy.experimental_local_results(missing), 0))
        return figures.stack(), unreadable.stack()

    def gradients(self, images: tf.Tensor, labels: tf.Tensor, mix: tf.Tensor | None = None) -> tuple[Any, Any, Any]:
        """A replica's share of a step. It changes no variable, so that XLA can compile it and the step can be dropped.

        Takes uint8 [B, H, W, C], int64 [B] and, for mixed pictures, float32 [B, 5]; returns the gradients, the new
        values of what is not trained, and float32 [2], the sum of the losses and of right answers.
        """
        model, config, parts = self._model, self._config, self._config.train.accumulate
        inputs, targets = preprocess.from_pixels(images, self._spec), tf.one_hot(labels, model.output_shape[-1])
        if mix is not None:
            inputs = mixing.blend(inputs, mix, config.augment)
            classes, size = model.output_shape[-1], self._spec.size
            targets = mixing.targets(labels, mix, config.augment, num_classes=classes, size=size)
        state = [variable.value for variable in model.non_trainable_variables]
        gradients: list[tf.Tensor] = []
        totals = tf.zeros([2])
        for part in range(parts):
            # Every so many-th picture, so that a part is the same set of them on any number of replicas; and one part
            # after the other, or their activations would lie in memory together.
            with tf.control_dependencies(gradients):
                chosen = tf.identity(inputs[part::parts]) if parts > 1 else inputs
            with tf.GradientTape() as tape:
                logits, state = self._forward(chosen, state)
                losses = self._objective(targets[part::parts], logits)
                loss = self._optimizer.scale_loss(tf.reduce_sum(losses) / config.data.batch_size)
            new = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
            gradients = [a + b for a, b in zip(gradients, new, strict=True)] if gradients else new
            right = tf.equal(tf.argmax(logits, axis=-1), labels[part::parts])
            totals += tf.stack([tf.reduce_sum(losses), tf.reduce_sum(tf.cast(right, tf.float32))])
        return gradients, state, totals

    def _forward(self, inputs: tf.Tensor, state: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The logits, and the new values of what is not trained, which Keras would assign at once."""
        variables = self._model.non_trainable_variables
        with keras.StatelessScope(state_mapping=list(zip(variables, state, strict=True))) as scope:
            logits = self._model(inputs, training=True)
        return logits, [scope.get_current_value(variable) for variable in variables]

    def _differentiate(self, images: tf.Tensor, labels: tf.Tensor, mix: tf.Tensor | None = None) -> Any:
        """Gradients summed over the replicas, statistics averaged over them, and `FIGURES`."""
        gradients, state, totals = self._gradients(images, labels, mix)
        if self._replicas > 1:
            # Replicas see different images, so their BatchNorm statistics differ: from here on, all have the mean.
            floats = [index for index, value in enumerate(state) if value.dtype.is_floating]
            parts = [*gradients, *(state[index] / self._replicas for index in floats), totals]
            context = tf.distribute.get_replica_context()
            *summed, totals = context.all_reduce(tf.distribute.ReduceOp.SUM, parts)
            gradients = summed[: len(gradients)]
            for index, value in zip(floats, summed[len(gradients) :], strict=True):
                state[index] = value
        scale = self._optimizer.scale_loss(tf.constant(1.0))
        norm = tf.linalg.global_norm(gradients) / scale
        bad = ~tf.math.is_finite(totals[0]) | (~tf.math.is_finite(norm) & (scale <= 1.0))
        return gradients, state, tf.stack([totals[0], totals[1], norm, tf.cast(bad, tf.float32)])

    def _update(self, gradients: list[tf.Tensor], state: list[tf.Tensor], told: tf.Tensor) -> None:
        if clip := self._config.optimizer.clip_norm:
            factor = clip / tf.maximum(told[2], clip)
            gradients = [gradient * factor for gradient in gradients]
        self._optimizer.apply(gradients, self._model.trainable_variables)
        for variable, value in zip(self._model.non_trainable_variables, state, strict=True):
            variable.value.assign(value)
        if self._average:
            self._average.update(self._optimizer.iterations - 1)

    def _skip(self) -> None:
        """The rate goes by the step's number, so that also counts what was skipped."""
        self._optimizer.iterations.assign_add(1)
        if isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer):
            self._optimizer.step_counter.assign(0)
            self._optimizer.dynamic_scale.assign(self._optimizer.dynamic_scale * 0.5)
