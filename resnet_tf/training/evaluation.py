"""Exact evaluation: every example counts once, whatever the batch size and the number of replicas."""

import json
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import Evaluation
from resnet_tf.data import pipeline
from resnet_tf.data.sources import Source, Split, check_classes
from resnet_tf.data.unreadable import translate_read_errors
from resnet_tf.inputs import Preprocess
from resnet_tf.training.cluster import Cluster
from resnet_tf.training.run import TEST_METRICS, Run

_TEST_METRICS = ("test_examples", "test_top1", "test_top5", "test_loss")


class Evaluator:
    """Evaluates a model on a split, with a compiled function that is kept between calls.

    Args:
        model: network from preprocessed examples to logits.
        split: split to evaluate on.
        preprocess: preprocessing of the model.
        batch_size: examples in a batch, over all replicas.
        strategy: strategy that the model was built under. Each worker evaluates its part of the split, and receives the
            logits of all examples.
        flip: average the logits of an image and its mirror image.
        memory_limit_mb: a preprocessed split of at most this size, in MB, is cached for the next evaluation.
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
        parts = pipeline.split_among_replicas(batches, cluster.replicas)
        self._batches = strategy.distribute_datasets_from_function(lambda context: parts)

        def forward(images: tf.Tensor) -> tf.Tensor:
            logits = model(images, training=False)
            return (logits + model(images[:, :, ::-1], training=False)) / 2 if flip else logits

        @tf.function(reduce_retracing=True)
        def predict(images: tf.Tensor, labels: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
            logits = strategy.run(forward, args=(images,))
            return tuple(strategy.gather(value, axis=0) for value in (logits, labels, indices))

        self._predict = predict

    def __call__(self, check: Callable[[], None] = lambda: None) -> Evaluation:
        """Evaluate the current weights; `check` is called before every batch, and stops the evaluation by raising."""
        with translate_read_errors(self._split, self._preprocess):
            batches = list(self._predict_batches(check))
        logits, labels, indices = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        order = np.argsort(indices)[np.sum(indices < 0) :]  # that of the split, without the padding of the last batches
        return Evaluation(targets=labels[order], logits=logits[order])

    def _predict_batches(self, check: Callable[[], None]) -> Iterator[tuple[np.ndarray, ...]]:
        for batch in self._batches:
            check()
            yield tuple(value.numpy() for value in self._predict(*batch))


def evaluate_run(run: Run, source: Source, *, batch_size: int, flip: bool = False) -> Evaluation:
    """Evaluate a loaded run on the validation split of a data set, its own or another.

    Args:
        run: see `load_run`.
        source: see `open_source`.
        batch_size: examples in a batch.
        flip: see `Evaluator`.

    Raises:
        UserError: if that data has other classes than the run was trained on, or cannot be read.
    """
    return _evaluate(run, source, source.validation, batch_size=batch_size, flip=flip)


def evaluate_test_split(run: Run, source: Source, *, batch_size: int) -> dict[str, float]:
    """Return the metrics of a run on the test split of its data, `test_loss`, `test_top1` and more; {} without one.

    The metrics are stored in `test_metrics.json` of the run directory with the step of the weights. For the same step
    they are read again, not evaluated again.

    Raises:
        UserError: if the data or the file cannot be read.
    """
    if source.test is None:
        return {}
    if stored := read_test_metrics(run):
        return stored
    metrics = _evaluate(run, source, source.test, batch_size=batch_size).to_dict()
    found = {f"test_{name}": value for name, value in metrics.items()}
    with files.translate_write_errors(run.workdir / TEST_METRICS):
        files.write_atomically(run.workdir / TEST_METRICS, json.dumps({"step": run.step, **found}, indent=2) + "\n")
    return found


def read_test_metrics(run: Run) -> dict[str, float]:
    """Return the stored metrics on the test split, `test_loss`, `test_top1` and more; {} if the weights have none.

    Raises:
        UserError: if `test_metrics.json` of the run directory cannot be read.
    """
    path = run.workdir / TEST_METRICS
    if not path.is_file():
        return {}
    stored = files.read_json(path)
    numbers = all(isinstance(value, int | float) for value in stored.values())
    if not numbers or not {"step", *_TEST_METRICS} <= set(stored):
        raise UserError(f"{str(path)!r} is not an object of the numbers step, {', '.join(_TEST_METRICS)}")
    return {name: value for name, value in stored.items() if name != "step"} if stored["step"] == run.step else {}


def _evaluate(run: Run, source: Source, split: Split, *, batch_size: int, flip: bool = False) -> Evaluation:
    check_classes(run.labels, source)
    if flip and "flip" not in run.preprocess.supported_augmentations:
        raise UserError(f"{run.preprocess.plural} have no mirror image")
    strategy = tf.distribute.get_strategy()
    return Evaluator(run.model, split, run.preprocess, batch_size=batch_size, strategy=strategy, flip=flip)()
