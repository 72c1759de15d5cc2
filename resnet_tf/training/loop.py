"""The training loop: one for every strategy."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.data import bad_inputs, mixing, pipeline, preprocess, service
from resnet_tf.data.bad_inputs import BadInputs
from resnet_tf.data.pipeline import Schedule
from resnet_tf.data.sources import Source, open_source
from resnet_tf.errors import UserError
from resnet_tf.training import checkpoint, objective, optimizers, run, runtime
from resnet_tf.training.evaluation import Evaluator
from resnet_tf.training.progress import MetricsFile, ProgressLine, TensorBoardScalars

logger = logging.getLogger(__name__)


def train_and_evaluate(
    config: Config, workdir: str | Path, *, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> dict[str, Any]:
    """Train what `config` describes, testing and saving after every epoch.

    Started again with the same `workdir` and configuration, it continues from the newest checkpoint.

    Args:
        config: see `load_config`.
        workdir: the run directory, created if need be.
        callbacks: further Keras callbacks. Their logs hold `step`, `loss`, `top1`, `test_loss`, `test_top1`,
            `test_top5`, `learning_rate` and `images_per_second`; `model.stop_training` ends the run.

    Returns:
        `examples`, `top1`, `top5` and `loss` on the test split, and `step`.

    Raises:
        UserError: for a configuration, data set or directory that does not fit, or a loss that is not finite.
    """
    workdir = Path(workdir)
    run.check_workdir(workdir, config)
    strategy = runtime.start(config.runtime)
    _check_replicas(config, strategy)
    source = open_source(config.data)
    trainer = Trainer(config, source, strategy)
    run.create_workdir(workdir, config)
    return trainer.fit(workdir, callbacks)


class Trainer:
    """A model, its optimizer and its data, ready to run under a strategy."""

    def __init__(self, config: Config, source: Source, strategy: tf.distribute.Strategy):
        self.config = config
        self.source = source
        self.strategy = strategy
        self.schedule = Schedule.of(config, source)
        self.step = 0
        # Just before the weights are drawn: preparing a data set draws from the same generators.
        keras.utils.set_random_seed(config.runtime.seed)
        with strategy.scope():
            self.model = run.create_network(
                config, num_classes=_count_classes(config, source), weights=config.model.weights or None
            )
            self.optimizer = optimizers.create_optimizer(config, self.schedule, self.model)
        # A random start has no convention of its own.
        self.spec = preprocess.from_config(config.data, getattr(self.model, "preprocess", None))
        self.train_steps = self._compile()
        logger.info(
            "%s: %s parameters; %s: %d images to train on, %d to test, %d classes; %d steps an epoch, %d epochs",
            config.model.name,
            f"{self.model.count_params():,}",
            source.name,
            source.train.num_examples,
            source.test.num_examples,
            len(source.class_names),
            self.schedule.steps_per_epoch,
            config.train.epochs,
        )
        balance = "" if config.data.balance == "none" else f" (data.balance={config.data.balance})"
        logger.info("training examples%s: %s", balance, source.describe_classes())

    def fit(self, workdir: Path, callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, Any]:
        """Continue from the newest checkpoint under `workdir`, if any, to the last step; see `train_and_evaluate`."""
        self._restore(workdir)
        evaluator = Evaluator(
            self.model, self.source.test, self.spec, batch_size=self.config.data.batch_size, strategy=self.strategy
        )
        if self.step == self.schedule.total_steps:
            return evaluator().to_dict() | {"step": self.step}
        observers = self._observers(workdir, callbacks)
        bad = BadInputs(self.source.train, self.spec, self.config.data, workdir / bad_inputs.FILE_NAME)
        batches = pipeline.train_batches(self.config, self.source, self.spec, self.schedule, start=self.step, bad=bad)
        iterator = iter(self.strategy.experimental_distribute_dataset(batches))
        metrics: dict[str, Any] = {}
        self.model.stop_training = False
        observers.on_train_begin()
        while self.step < self.schedule.total_steps and not self.model.stop_training:
            epoch = self.step // self.schedule.steps_per_epoch
            observers.on_epoch_begin(epoch)
            with service.naming_failures():
                logs = self._train_epoch(epoch, iterator, observers, bad)
            self._average_statistics()
            metrics = evaluator().to_dict()
            logs |= {f"test_{name}": value for name, value in metrics.items() if name != "examples"}
            observers.on_epoch_end(epoch, logs)  # before the checkpoint: what a kill in between adds twice is dropped
            self._save(workdir, metrics)
        observers.on_train_end()
        if bad.count:
            logger.warning("%d unreadable pictures were left out; see %s", bad.count, workdir / bad_inputs.FILE_NAME)
        return metrics | {"step": self.step}

    def _train_epoch(
        self, epoch: int, iterator: Any, observers: keras.callbacks.CallbackList, bad: BadInputs
    ) -> dict[str, Any]:
        """Train to the end of an epoch and return its figures."""
        first, last = self.step, (epoch + 1) * self.schedule.steps_per_epoch
        start, totals, logs = time.monotonic(), np.zeros(2), {}
        while self.step < last:
            count = min(self.config.runtime.steps_per_loop, last - self.step)
            loop_totals, missing = (value.numpy() for value in self.train_steps(iterator, tf.constant(count)))
            bad.note(missing)
            self._check_finite(loop_totals[0], count)
            totals += loop_totals
            self.step += count
            images = (self.step - first) * self.config.data.batch_size
            logs = {
                "step": self.step,
                "loss": totals[0] / images,
                "top1": totals[1] / images,
                "learning_rate": float(self.optimizer.learning_rate),
                "images_per_second": images / (time.monotonic() - start),
            }
            observers.on_train_batch_end(self.step - first - 1, logs)
        return logs

    def _compile(self):
        """A graph that takes `count` steps in one call.

        It returns [sum of losses, number of right answers] and the examples that could not be read, -1 for the others.
        """
        config, model, optimizer, strategy, spec = self.config, self.model, self.optimizer, self.strategy, self.spec

        def replica_step(images, labels, mix=None):
            inputs, classes = preprocess.from_pixels(images, spec), model.output_shape[-1]
            targets = tf.one_hot(labels, classes)
            if mix is not None:
                inputs = mixing.blend(inputs, mix, config.augment)
                targets = mixing.targets(labels, mix, config.augment, num_classes=classes, size=spec.size)
            with tf.GradientTape() as tape:
                logits = model(inputs, training=True)
                losses = objective.cross_entropy(targets, logits, config.loss)
                loss = optimizer.scale_loss(tf.reduce_sum(losses) / config.data.batch_size)
            gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
            gradients = optimizers.add_coupled_decay(
                gradients, model, optimizer, config, replicas=strategy.num_replicas_in_sync
            )
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            right = tf.equal(tf.argmax(logits, axis=-1), labels)
            return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(tf.cast(right, tf.float32))])

        @tf.function
        def train_steps(iterator, count):
            totals, unreadable = tf.zeros([2]), tf.TensorArray(tf.int64, count)
            for step in tf.range(count):
                images, labels, missing, *mix = next(iterator)
                per_replica = strategy.run(replica_step, args=(images, labels, *mix))
                totals += strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)
                unreadable = unreadable.write(step, tf.concat(strategy.experimental_local_results(missing), 0))
            return totals, unreadable.stack()

        return train_steps

    def _average_statistics(self) -> None:
        """Replicas see different images, so their BatchNorm statistics differ: take the mean."""
        if self.strategy.num_replicas_in_sync == 1:
            return
        for variable in self.model.non_trainable_variables:
            replicas = self.strategy.run(tf.identity, args=(variable.value,))
            variable.value.assign(self.strategy.reduce(tf.distribute.ReduceOp.MEAN, replicas, axis=None))

    def _observers(self, workdir: Path, callbacks: Sequence[keras.callbacks.Callback]) -> keras.callbacks.CallbackList:
        epochs, steps_per_epoch = self.config.train.epochs, self.schedule.steps_per_epoch
        own = [
            MetricsFile(workdir / run.METRICS, start_step=self.step),
            TensorBoardScalars(workdir / run.TENSORBOARD),
            ProgressLine(epochs=epochs, steps_per_epoch=steps_per_epoch),
        ]
        return keras.callbacks.CallbackList(
            [*own, *callbacks], model=self.model, epochs=epochs, steps=steps_per_epoch, verbose=0
        )

    def _restore(self, workdir: Path) -> None:
        newest = checkpoint.latest(workdir / run.CHECKPOINTS)
        if newest is None:
            return
        metadata = checkpoint.read_metadata(newest)
        before, now = metadata["data"], self.source.identity
        if before != now:
            raise UserError(f"run {str(workdir)!r} was trained on {before}, but data.source now gives {now}")
        checkpoint.restore(newest, self.model, self.optimizer)
        self.step = metadata["step"]
        logger.info("continuing from step %d of %s", self.step, newest)

    def _save(self, workdir: Path, metrics: dict[str, Any]) -> None:
        checkpoint.save(
            workdir / run.CHECKPOINTS,
            self.model,
            self.optimizer,
            step=self.step,
            metadata={"preprocess": self.spec.to_dict(), "data": self.source.identity, "metrics": metrics},
            keep=self.config.train.keep_checkpoints,
        )

    def _check_finite(self, loss: float, count: int) -> None:
        if not np.isfinite(loss):
            rate = self.config.optimizer.base_lr
            raise UserError(
                f"the loss is {loss} within steps {self.step} to {self.step + count}; a lower optimizer.base_lr (now "
                f"{rate}) or a longer warmup often helps. The last checkpoint is kept"
            )


def _count_classes(config: Config, source: Source) -> int:
    """The classes of the data, checked against what the configuration says."""
    asked, present = config.model.num_classes, len(source.class_names)
    if asked not in (0, present):
        raise UserError(
            f"model.num_classes={asked}, but {source.name!r} has {present} classes; 0 takes the number from the data"
        )
    return present


def _check_replicas(config: Config, strategy: tf.distribute.Strategy) -> None:
    replicas = strategy.num_replicas_in_sync
    group = mixing.group_size(config.augment)
    if config.data.batch_size % (replicas * group):
        pairs = f" in groups of {group}, as the pictures are mixed" if group > 1 else ""
        raise UserError(f"data.batch_size={config.data.batch_size} does not divide among {replicas} replicas{pairs}")
