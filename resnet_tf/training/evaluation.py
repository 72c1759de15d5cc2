"""Exact evaluation: every example counts once, whatever the batch size and the number of replicas."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.data import pipeline
from resnet_tf.data.sources import Source, Split, check_classes
from resnet_tf.spec import Preprocess
from resnet_tf.training.run import Run


@dataclass(frozen=True)
class Evaluation:
    """Figures of one pass over a split.

    Attributes:
        labels: int64 [N], in the order of the split.
        logits: float32 [N, C].
    """

    labels: np.ndarray
    logits: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """`examples`, `top1`, `top5`, `loss` as plain numbers; fractions in [0, 1], loss in nats."""
        return {"examples": len(self.labels), "top1": self.top(1), "top5": self.top(5), "loss": self.loss}

    def __str__(self) -> str:
        return f"top-1 {self.top(1):.4f}  top-5 {self.top(5):.4f}  loss {self.loss:.4f}  on {len(self.labels):,} images"

    def top(self, k: int) -> float:
        """Share of examples whose label is among the `k` largest logits; a tie counts against the label."""
        return float(np.mean(self.ranks < k))

    @property
    def ranks(self) -> np.ndarray:
        """For each example, how many other classes have a logit at least as large as the label's."""
        own = np.take_along_axis(self.logits, self.labels[:, None], axis=1)
        return np.sum(self.logits >= own, axis=1) - 1

    @property
    def loss(self) -> float:
        """Mean cross-entropy without label smoothing."""
        logits = self.logits.astype(np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)
        own = np.take_along_axis(shifted, self.labels[:, None], axis=1)[:, 0]
        return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - own))

    @property
    def predictions(self) -> np.ndarray:
        """The class with the largest logit, int64 [N]."""
        return self.logits.argmax(axis=1)

    def mistakes(self, count: int) -> list[int]:
        """Places of at most `count` wrong answers, those furthest above the right class first."""
        own = np.take_along_axis(self.logits, self.labels[:, None], axis=1)[:, 0]
        excess = self.logits.max(axis=1) - own
        worst = np.argsort(-excess, kind="stable")[:count]
        return [int(index) for index in worst if self.predictions[index] != self.labels[index]]


class Evaluator:
    """Evaluates a model on a split; the compiled function and the decoded data are kept between calls."""

    def __init__(
        self, model: keras.Model, split: Split, spec: Preprocess, *, batch_size: int, strategy: tf.distribute.Strategy
    ):
        self._strategy, self._split, self._spec = strategy, split, spec
        # A global batch must divide evenly among the replicas, or their logits could not be gathered in order.
        replicas = strategy.num_replicas_in_sync
        global_batch = -(-min(batch_size, split.num_examples) // replicas) * replicas
        self._batches = strategy.experimental_distribute_dataset(pipeline.eval_batches(split, spec, global_batch))

        @tf.function(reduce_retracing=True)
        def predict(images, labels, weights):
            logits = strategy.run(lambda batch: model(batch, training=False), args=(images,))
            return tuple(strategy.gather(value, axis=0) for value in (logits, labels, weights))

        self._predict = predict

    def __call__(self) -> Evaluation:
        with pipeline.naming_failures(self._split, self._spec):
            parts = list(self._parts())
        logits, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Evaluation(labels=labels, logits=logits)

    def _parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in self._batches:
            logits, labels, weights = (value.numpy() for value in self._predict(*batch))
            yield logits[weights > 0], labels[weights > 0]


def evaluate_run(run: Run, source: Source, *, batch_size: int) -> Evaluation:
    """Evaluate a loaded run on the test split of a data set, its own or another.

    Raises:
        UserError: if that data has other classes than the run was trained on, or cannot be read.
    """
    check_classes(run.labels, source)
    strategy = tf.distribute.get_strategy()
    return Evaluator(run.model, source.test, run.preprocess, batch_size=batch_size, strategy=strategy)()
