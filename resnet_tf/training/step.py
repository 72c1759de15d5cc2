"""The training step: gradients over the global batch, a finiteness check, and the update."""

import functools
from typing import Any

import keras
import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.core.graphs import without_autograph
from resnet_tf.core.targets import targets_of
from resnet_tf.data.augmentation import mixing
from resnet_tf.inputs import Preprocess
from resnet_tf.model.builder import is_head
from resnet_tf.model.recursion import deep_graph
from resnet_tf.training.objective import Loss
from resnet_tf.training.optimizers.conditional import apply_if
from resnet_tf.training.optimizers.create import skipped_steps
from resnet_tf.training.resize import resize
from resnet_tf.training.teacher import Resize, Teacher
from resnet_tf.training.weight_average import WeightAverage

# Statistics of a step, float32 [5]: sum of the losses over the global batch, number of correct predictions, norm of the
# gradient before clipping, 1 for a non-finite step that a smaller loss scale could not have avoided, and number of
# examples with a class, which all but those of multi-label targets have.
STATISTICS = ("loss", "correct", "gradient_norm", "nonfinite", "labeled")


class TrainStep:
    """Compiled training steps. A non-finite step changes nothing but the step counter.

    Args:
        config: configuration; uses `train.accumulate`, `optimizer.clip_norm` and `augment`.
        model: network, built inside the scope of `strategy` like the following objects.
        optimizer: see `create_optimizer`.
        objective: loss of each example.
        average: moving average of the weights to update, or None.
        strategy: distribution strategy.
        preprocess: preprocessing that turns a batch into the model input.
        teacher: teacher for distillation, or None.
        on_accelerator: whether the replicas compute on GPUs or TPUs. A step is then one program for the device, which
            selects between the new and the old values of the variables; on a CPU, `tf.cond` saves that pass.
        xla: whether XLA compiles the step, or its gradients where replicas exchange them.
    """

    def __init__(
        self,
        config: Config,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        objective: Loss,
        average: WeightAverage | None,
        strategy: tf.distribute.Strategy,
        preprocess: Preprocess,
        teacher: Teacher | None = None,
        *,
        on_accelerator: bool = False,
        xla: bool = False,
    ):
        self._config, self._preprocess, self._strategy = config, preprocess, strategy
        self._model, self._optimizer, self._objective, self._average = model, optimizer, objective, average
        self._teacher = teacher
        self._replicas = strategy.num_replicas_in_sync
        self._on_accelerator = on_accelerator
        # XLA and accelerators have no kernel of `tf.image.resize`, which on CPUs takes half the time.
        self._resize: Resize = resize if xla or on_accelerator else functools.partial(tf.image.resize, antialias=True)
        # Several replicas exchange gradients outside of XLA, which compiles the part of the step before.
        as_one = xla and on_accelerator and self._replicas == 1
        self._gradients = tf.function(self.gradients, jit_compile=True) if xla and not as_one else self.gradients
        self._complete_step = tf.function(self._complete, jit_compile=True) if as_one else self._complete
        self._body, self._head = _split(model)
        self._variables, self._state = list(model.trainable_variables), list(model.non_trainable_variables)
        self.run = tf.function(self._run)

    def _run(
        self, iterator: Any, count: tf.Tensor, head_only: bool = False, size: int | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Take training steps on the next batches.

        Args:
            iterator: iterator of `Trainer.batches`.
            count: number of steps, int scalar.
            head_only: train the head and its dropout only, with the rest of the network in inference mode.
            size: image size in pixels to downsample to, or None.

        Returns:
            `STATISTICS` of each step, float32 [count, 5], and the indices of unreadable examples, int64 [count, B], -1
            for readable ones.
        """
        strategy = self._strategy
        # Bound, since the arguments of `run` become tensors on a TPU.
        complete = functools.partial(self._complete_step, head_only=head_only, size=size)
        differentiate = functools.partial(self._differentiate, head_only=head_only, size=size)
        update = functools.partial(self._update, head_only=head_only)
        statistics, unreadable = tf.TensorArray(tf.float32, count), tf.TensorArray(tf.int64, count)
        for step in tf.range(count):
            images, labels, missing, *mix = next(iterator)
            if self._on_accelerator:
                own = strategy.run(complete, args=(images, labels, *mix))
                values = strategy.experimental_local_results(own)[0]  # equal on all replicas
            else:
                gradients, state, own = strategy.run(differentiate, args=(images, labels, *mix))
                values = strategy.experimental_local_results(own)[0]
                if tf.reduce_all(tf.math.is_finite(values)):
                    strategy.run(update, args=(gradients, state, own))
                else:
                    strategy.run(self._skip)
            statistics = statistics.write(step, values)
            unreadable = unreadable.write(step, tf.concat(strategy.experimental_local_results(missing), 0))
        return statistics.stack(), unreadable.stack()

    @without_autograph
    def gradients(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        mix: tf.Tensor | None = None,
        *,
        head_only: bool = False,
        size: int | None = None,
    ) -> tuple[Any, Any, Any]:
        """Compute the gradients of one replica, without changing a variable: XLA can compile it, and a step be skipped.

        Args:
            images: input batch, uint8 [B, H, W, C] images or float32 [B, L, C] signals.
            labels: int64 [B], or bool [B, classes], see `core.targets`.
            mix: random numbers of mixup and cutmix, float32 [B, 5], or None.
            head_only: see `_run`.
            size: see `_run`.

        Returns:
            Gradients, new values of the non-trainable variables, and float32 [3]: sum of the losses, number of correct
            predictions, and number of examples with a class.
        """
        config, count, trained = self._config, self._config.train.accumulate, self._trained(head_only)
        inputs, targets = self._inputs(images, labels, mix)
        soft = self._teacher(inputs, self._resize) if self._teacher else None
        if size:
            inputs = self._resize(inputs, (size, size))
        state = [variable.value for variable in self._state]
        gradients: list[tf.Tensor] = []
        totals = tf.zeros([3])
        for first in range(count):
            # Micro-batches are strided, so that they hold the same examples on any number of replicas, and computed one
            # after another, so that only one set of activations is in memory.
            with tf.control_dependencies(gradients):
                micro = tf.identity(inputs[first::count]) if count > 1 else inputs
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([variable.value for variable in trained])
                logits, state = self._forward(micro, state, head_only=head_only)
                losses = self._objective(targets[first::count], logits, soft if soft is None else soft[first::count])
                loss = self._optimizer.scale_loss(tf.reduce_sum(losses) / config.data.batch_size)
            new = tape.gradient(loss, [variable.value for variable in trained])
            gradients = [a + b for a, b in zip(gradients, new, strict=True)] if gradients else new
            best = tf.one_hot(tf.argmax(logits, axis=-1), logits.shape[-1])
            own = targets_of(labels).encode(labels[first::count], logits.shape[-1])
            labeled = tf.reduce_sum(tf.reduce_max(own, axis=-1))
            totals += tf.stack([tf.reduce_sum(losses), tf.reduce_sum(best * own), labeled])
        return gradients, state, totals

    def _inputs(self, images: tf.Tensor, labels: tf.Tensor, mix: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the model input and the targets: the proportion of each class, float32 [B, classes]."""
        inputs, classes = self._preprocess.from_batch(images), self._model.output_shape[-1]
        if mix is None:
            return inputs, targets_of(labels).encode(labels, classes)
        settings, size = self._config.augment, self._preprocess.spatial_shape
        return mixing.blend(inputs, mix, settings), mixing.targets(
            labels, mix, settings, num_classes=classes, size=size
        )

    def _trained(self, head_only: bool) -> list[keras.Variable]:
        return [each for each in self._variables if not head_only or is_head(each)]

    def _forward(
        self, inputs: tf.Tensor, state: list[tf.Tensor], *, head_only: bool
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return logits and new values of the non-trainable variables, which Keras would assign at once."""
        with keras.StatelessScope(state_mapping=list(zip(self._state, state, strict=True))) as scope:
            if head_only:
                logits = self._body(inputs, training=False)
                for layer in self._head:  # dropout, if any, and logits
                    logits = layer(logits, training=True)
            else:
                logits = self._model(inputs, training=True)
        return logits, [scope.get_current_value(variable) for variable in self._state]

    @without_autograph
    def _differentiate(self, *batch: tf.Tensor, head_only: bool, size: int | None) -> Any:
        """Return gradients summed over replicas, BatchNorm statistics averaged over them, and `STATISTICS`."""
        gradients, state, totals = self._gradients(*batch, head_only=head_only, size=size)
        if self._replicas > 1:
            # BatchNorm statistics differ between replicas; every replica takes their mean.
            floats = [index for index, value in enumerate(state) if value.dtype.is_floating]
            tensors = [*gradients, *(state[index] / self._replicas for index in floats), totals]
            context = tf.distribute.get_replica_context()
            *summed, totals = context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)
            gradients = summed[: len(gradients)]
            for index, value in zip(floats, summed[len(gradients) :], strict=True):
                state[index] = value
        scale = self._optimizer.scale_loss(tf.constant(1.0))
        norm = tf.linalg.global_norm(gradients) / scale
        nonfinite = ~tf.math.is_finite(totals[0]) | (~tf.math.is_finite(norm) & (scale <= 1.0))
        return gradients, state, tf.stack([totals[0], totals[1], norm, tf.cast(nonfinite, tf.float32), totals[2]])

    @without_autograph
    def _complete(self, *batch: tf.Tensor, head_only: bool, size: int | None) -> tf.Tensor:
        """Take a step on one replica without a decision of the host, and return its `STATISTICS`."""
        gradients, state, statistics = self._differentiate(*batch, head_only=head_only, size=size)
        finite = tf.reduce_all(tf.math.is_finite(statistics))
        state = [tf.where(finite, new, old.value) for new, old in zip(state, self._state, strict=True)]
        self._update(gradients, state, statistics, head_only=head_only, condition=finite)
        return statistics

    @without_autograph
    def _update(
        self,
        gradients: list[tf.Tensor],
        state: list[tf.Tensor],
        statistics: tf.Tensor,
        *,
        head_only: bool,
        condition: tf.Tensor | None = None,
    ) -> None:
        if clip := self._config.optimizer.clip_norm:
            factor = clip / tf.maximum(statistics[2], clip)
            gradients = [gradient * factor for gradient in gradients]
        if condition is None:
            self._optimizer.apply(gradients, self._trained(head_only))
        else:
            apply_if(self._optimizer, condition, gradients, self._trained(head_only))
            skipped = skipped_steps(self._optimizer)
            skipped.assign_add(tf.cast(~condition, skipped.dtype))
        for variable, value in zip(self._state, state, strict=True):
            variable.assign(value)
        if self._average:
            self._average.update(self._optimizer.iterations - 1, condition)

    @without_autograph
    def _skip(self) -> None:
        """Count a skipped step, since the learning rate is a function of the step."""
        self._optimizer.iterations.assign_add(1)
        skipped_steps(self._optimizer).assign_add(1)
        if isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer):
            self._optimizer.step_counter.assign(0)
            self._optimizer.dynamic_scale.assign(self._optimizer.dynamic_scale * 0.5)


def _split(model: keras.Model) -> tuple[keras.Model, list[keras.Layer]]:
    """Return the body of a network, which ends with the pooled features, and the layers of its head."""
    head = model.layers[-2:] if isinstance(model.layers[-2], keras.layers.Dropout) else model.layers[-1:]
    with deep_graph():
        return keras.Model(model.input, head[0].input, name="body"), head
