"""Exact evaluation: every example counts once, whatever the batch size and the number of replicas."""

from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import Evaluation
from resnet_tf.data import pipeline
from resnet_tf.data.sources import Source, Split, check_classes
from resnet_tf.data.unreadable import translate_read_errors
from resnet_tf.inputs import Preprocess
from resnet_tf.training.cluster import Cluster
from resnet_tf.training.run import Run


class Evaluator:
    """Evaluates a model on a split; the compiled function is kept between calls.

    Args:
        model: from normalized images to logits.
        split: what it is tested on.
        preprocess: how examples become its input.
        batch_size: images at a time, over all replicas.
        strategy: what the model was built under. Every worker takes its part of the split and gets all answers.
        flip: take the mean of the logits of a picture and of its mirror image.
        memory_limit_mb: the split is kept ready for the next test, if it needs no more.
    """

    def __init__(
        self,
        model: keras.Model,
        split: Split,
        preprocess: Preprocess,
        *,
        batch_size: int,
        strategy: tf.distribute.Strategy,
        flip: bool = False,
        memory_limit_mb: int = 0,
    ):
        self._strategy, self._split, self._preprocess = strategy, split, preprocess
        cluster, replicas = Cluster(strategy), strategy.num_replicas_in_sync
        per_replica = -(-min(batch_size, split.num_examples) // replicas)
        shard = pipeline.Shard(cluster.index, cluster.count)
        size = per_replica * cluster.replicas
        batches = pipeline.eval_batches(split, preprocess, size, shard=shard, memory_limit_mb=memory_limit_mb)
        parts = pipeline.among_replicas(batches, cluster.replicas)
        self._batches = strategy.distribute_datasets_from_function(lambda context: parts)

        def answer(images: tf.Tensor) -> tf.Tensor:
            logits = model(images, training=False)
            return (logits + model(images[:, :, ::-1], training=False)) / 2 if flip else logits

        @tf.function(reduce_retracing=True)
        def predict(images: tf.Tensor, labels: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, ...]:
            logits = strategy.run(answer, args=(images,))
            return tuple(strategy.gather(value, axis=0) for value in (logits, labels, places))

        self._predict = predict

    def __call__(self, check: Callable[[], None] = lambda: None) -> Evaluation:
        """Evaluate the weights as they are; `check` is called before every batch, to raise what shall end it."""
        with translate_read_errors(self._split, self._preprocess):
            answers = list(self._answers(check))
        logits, labels, places = (np.concatenate(arrays) for arrays in zip(*answers, strict=True))
        order = np.argsort(places)[np.sum(places < 0) :]  # as in the split, and without what filled the last batches
        return Evaluation(targets=labels[order], logits=logits[order])

    def _answers(self, check: Callable[[], None]) -> Iterator[tuple[np.ndarray, ...]]:
        for batch in self._batches:
            check()
            yield tuple(value.numpy() for value in self._predict(*batch))


def evaluate_run(run: Run, source: Source, *, batch_size: int, flip: bool = False) -> Evaluation:
    """Evaluate a loaded run on the test split of a data set, its own or another; `flip` is that of `Evaluator`.

    Raises:
        UserError: if that data has other classes than the run was trained on, or cannot be read.
    """
    check_classes(run.labels, source)
    if flip and "flip" not in run.preprocess.supported_augmentations:
        raise UserError(f"{run.preprocess.plural} have no mirror image")
    strategy = tf.distribute.get_strategy()
    return Evaluator(run.model, source.test, run.preprocess, batch_size=batch_size, strategy=strategy, flip=flip)()
