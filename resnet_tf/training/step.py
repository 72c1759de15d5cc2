"""One training step under any strategy: gradients over the global batch, a look whether they are finite, the update."""

from typing import Any

import keras
import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.data.augmentation import mixing
from resnet_tf.inputs import Preprocess
from resnet_tf.model.builder import LOGITS_LAYER
from resnet_tf.training.losses import Objective
from resnet_tf.training.teacher import Teacher
from resnet_tf.training.weight_average import WeightAverage

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
        preprocess: how a batch becomes the model's input.
        teacher: its logits are learnt, too, if given.
    """

    def __init__(
        self,
        config: Config,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        objective: Objective,
        average: WeightAverage | None,
        strategy: tf.distribute.Strategy,
        preprocess: Preprocess,
        teacher: Teacher | None = None,
    ):
        self._config, self._preprocess, self._strategy = config, preprocess, strategy
        self._model, self._optimizer, self._objective, self._average = model, optimizer, objective, average
        self._teacher = teacher
        self._replicas = strategy.num_replicas_in_sync
        self._gradients = tf.function(self.gradients, jit_compile=True) if config.runtime.xla else self.gradients
        self._variables, self._state = list(model.trainable_variables), list(model.non_trainable_variables)
        self.run = tf.function(self._run)

    def _run(
        self, iterator: Any, count: tf.Tensor, head_only: bool = False, size: int | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Take steps on the next batches.

        Args:
            iterator: see `Trainer.batches`.
            count: int scalar, how many steps.
            head_only: only the class head learns, on a network that is as in testing.
            size: side of the pictures in pixels, if they are to be made smaller.

        Returns:
            `FIGURES` of each step, float32 [count, 4], and the examples that were missing, int64 [count, B].
        """
        strategy = self._strategy
        kind = {"head_only": head_only, "size": size}
        figures, unreadable = tf.TensorArray(tf.float32, count), tf.TensorArray(tf.int64, count)
        for step in tf.range(count):
            images, labels, missing, *mix = next(iterator)
            gradients, state, told = strategy.run(self._differentiate, args=(images, labels, *mix), kwargs=kind)
            row = strategy.experimental_local_results(told)[0]  # the same on all
            if tf.reduce_all(tf.math.is_finite(row)):
                strategy.run(self._update, args=(gradients, state, told), kwargs={"head_only": head_only})
            else:
                strategy.run(self._skip)
            figures = figures.write(step, row)
            unreadable = unreadable.write(step, tf.concat(strategy.experimental_local_results(missing), 0))
        return figures.stack(), unreadable.stack()

    def gradients(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        mix: tf.Tensor | None = None,
        *,
        head_only: bool = False,
        size: int | None = None,
    ) -> tuple[Any, Any, Any]:
        """A replica's share of a step. It changes no variable, so that XLA can compile it and the step can be dropped.

        Takes uint8 [B, H, W, C], or signals, float32 [B, L, C]; int64 [B] and, for mixed ones, float32 [B, 5]. Returns
        the gradients, the new values of what is not trained, and float32 [2], the sum of the losses and of right
        answers.
        """
        config, parts, learning = self._config, self._config.train.accumulate, self._learning(head_only)
        inputs, targets = self._inputs(images, labels, mix)
        taught = self._teacher(inputs) if self._teacher else None
        if size:
            inputs = tf.image.resize(inputs, [size, size], antialias=True)
        state = [variable.value for variable in self._state]
        gradients: list[tf.Tensor] = []
        totals = tf.zeros([2])
        for part in range(parts):
            # Every so many-th picture, so that a part is the same set of them on any number of replicas; and one part
            # after the other, or their activations would lie in memory together.
            with tf.control_dependencies(gradients):
                chosen = tf.identity(inputs[part::parts]) if parts > 1 else inputs
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([variable.value for variable in learning])
                logits, state = self._forward(chosen, state, training=not head_only)
                losses = self._objective(
                    targets[part::parts], logits, taught if taught is None else taught[part::parts]
                )
                loss = self._optimizer.scale_loss(tf.reduce_sum(losses) / config.data.batch_size)
            new = tape.gradient(loss, [variable.value for variable in learning])
            gradients = [a + b for a, b in zip(gradients, new, strict=True)] if gradients else new
            right = tf.equal(tf.argmax(logits, axis=-1), labels[part::parts])
            totals += tf.stack([tf.reduce_sum(losses), tf.reduce_sum(tf.cast(right, tf.float32))])
        return gradients, state, totals

    def _inputs(self, images: tf.Tensor, labels: tf.Tensor, mix: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """The model's input, and the share of each class in it."""
        inputs, classes = self._preprocess.from_batch(images), self._model.output_shape[-1]
        if mix is None:
            return inputs, tf.one_hot(labels, classes)
        settings, size = self._config.augment, self._preprocess.spatial_shape
        return mixing.blend(inputs, mix, settings), mixing.targets(
            labels, mix, settings, num_classes=classes, size=size
        )

    def _learning(self, head_only: bool) -> list[keras.Variable]:
        return [each for each in self._variables if not head_only or each.path.startswith(LOGITS_LAYER)]

    def _forward(
        self, inputs: tf.Tensor, state: list[tf.Tensor], *, training: bool
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The logits, and the new values of what is not trained, which Keras would assign at once."""
        with keras.StatelessScope(state_mapping=list(zip(self._state, state, strict=True))) as scope:
            logits = self._model(inputs, training=training)
        return logits, [scope.get_current_value(variable) for variable in self._state]

    def _differentiate(self, *batch: tf.Tensor, head_only: bool, size: int | None) -> Any:
        """Gradients summed over the replicas, statistics averaged over them, and `FIGURES`."""
        gradients, state, totals = self._gradients(*batch, head_only=head_only, size=size)
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

    def _update(self, gradients: list[tf.Tensor], state: list[tf.Tensor], told: tf.Tensor, *, head_only: bool) -> None:
        if clip := self._config.optimizer.clip_norm:
            factor = clip / tf.maximum(told[2], clip)
            gradients = [gradient * factor for gradient in gradients]
        self._optimizer.apply(gradients, self._learning(head_only))
        for variable, value in zip(self._state, state, strict=True):
            variable.value.assign(value)
        if self._average:
            self._average.update(self._optimizer.iterations - 1)

    def _skip(self) -> None:
        """The rate goes by the step's number, so that also counts what was skipped."""
        self._optimizer.iterations.assign_add(1)
        if isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer):
            self._optimizer.step_counter.assign(0)
            self._optimizer.dynamic_scale.assign(self._optimizer.dynamic_scale * 0.5)
