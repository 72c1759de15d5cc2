"""Exact evaluation: every example counts once, whatever the batch size and the number of replicas."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.data import pipeline
from resnet_tf.data.sources import Source, Split, check_classes
from resnet_tf.spec import Preprocess
from resnet_tf.training.cluster import Cluster
from resnet_tf.training.run import Run

_BINS = 15  # of confidence, as most papers have


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
        """The figures as plain numbers: fractions in [0, 1], loss in nats."""
        return {
            "examples": len(self.labels),
            "top1": self.top(1),
            "top5": self.top(5),
            "loss": self.loss,
            "balanced_accuracy": self.balanced_accuracy,
            "calibration_error": self.calibration_error,
        }

    def __str__(self) -> str:
        figures = f"top-1 {self.top(1):.4f}  top-5 {self.top(5):.4f}  loss {self.loss:.4f}"
        return f"{figures}  balanced {self.balanced_accuracy:.4f}  on {len(self.labels):,} images"

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
        own = np.take_along_axis(self.logits, self.labels[:, None], axis=1)
        return float(np.mean(_log_sum(self.logits) - own))

    @property
    def confusion(self) -> np.ndarray:
        """How often examples of a class (row) are taken for another (column), int64 [C, C]."""
        counts = np.zeros((self.logits.shape[1],) * 2, np.int64)
        np.add.at(counts, (self.labels, self.predictions), 1)
        return counts

    @property
    def recall(self) -> np.ndarray:
        """The share of each class's examples that is found, float64 [C]; not a number for a class without any."""
        counts = self.confusion
        examples = counts.sum(axis=1)
        return np.divide(np.diag(counts), examples, out=np.full(len(counts), np.nan), where=examples > 0)

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have examples."""
        return float(np.nanmean(self.recall))

    @property
    def calibration_error(self) -> float:
        """How far confidence and accuracy are apart in 15 equally wide bins (Guo et al. 2017, On Calibration)."""
        confidence = np.exp(self.logits - _log_sum(self.logits))[np.arange(len(self.labels)), self.predictions]
        bins = np.minimum((np.ceil(confidence * _BINS) - 1).astype(int), _BINS - 1)
        gaps = np.bincount(bins, (self.predictions == self.labels) - confidence, _BINS)
        return float(np.abs(gaps).sum() / len(self.labels))

    def classes(self, labels: Sequence[str]) -> dict[str, Any]:
        """`recall` of each class by its name, None without examples; `confusion`, rows and columns in their order."""
        recall = {
            name: None if np.isnan(share) else share for name, share in zip(labels, self.recall.tolist(), strict=True)
        }
        return {"recall": recall, "confusion": self.confusion.tolist()}

    def describe_classes(self, labels: Sequence[str]) -> str:
        """A line a class, the least recalled first: its recall, its examples, and what it is most often taken for."""
        counts, lines = self.confusion, []
        for label in np.argsort(np.nan_to_num(self.recall, nan=2.0), kind="stable"):
            examples, mistaken = int(counts[label].sum()), counts[label].copy()
            if not examples:
                continue
            mistaken[label] = 0
            other = int(mistaken.argmax())
            taken = f"  {mistaken[other]} taken for {labels[other]}" if mistaken[other] else ""
            lines.append(f"  {self.recall[label]:.4f} of {examples:>6,}  {labels[label]}{taken}")
        return "\n".join(lines)

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
    """Evaluates a model on a split; the compiled function is kept between calls.

    Args:
        model: from normalised images to logits.
        split: what it is tested on.
        spec: how pictures become its input.
        batch_size: images at a time, over all replicas.
        strategy: what the model was built under. Every worker takes its part of the split and gets all answers.
        flip: take the mean of the logits of a picture and of its mirror image.
    """

    def __init__(
        self,
        model: keras.Model,
        split: Split,
        spec: Preprocess,
        *,
        batch_size: int,
        strategy: tf.distribute.Strategy,
        flip: bool = False,
    ):
        self._strategy, self._split, self._spec = strategy, split, spec
        cluster, replicas = Cluster(strategy), strategy.num_replicas_in_sync
        per_replica = -(-min(batch_size, split.num_examples) // replicas)
        shard = pipeline.Shard(cluster.index, cluster.count)
        batches = pipeline.eval_batches(split, spec, per_replica * cluster.replicas, shard=shard)
        parts = pipeline.among_replicas(batches, cluster.replicas)
        self._batches = strategy.distribute_datasets_from_function(lambda context: parts)

        def answer(images):
            logits = model(images, training=False)
            return (logits + model(images[:, :, ::-1], training=False)) / 2 if flip else logits

        @tf.function(reduce_retracing=True)
        def predict(images, labels, places):
            logits = strategy.run(answer, args=(images,))
            return tuple(strategy.gather(value, axis=0) for value in (logits, labels, places))

        self._predict = predict

    def __call__(self, check: Callable[[], None] = lambda: None) -> Evaluation:
        """Evaluate the weights as they are; `check` is called before every batch, to raise what shall end it."""
        with pipeline.naming_failures(self._split, self._spec):
            answers = list(self._answers(check))
        logits, labels, places = (np.concatenate(arrays) for arrays in zip(*answers, strict=True))
        order = np.argsort(places)[np.sum(places < 0) :]  # as in the split, and without what filled the last batches
        return Evaluation(labels=labels[order], logits=logits[order])

    def _answers(self, check: Callable[[], None]) -> Iterator[tuple[np.ndarray, ...]]:
        for batch in self._batches:
            check()
            yield tuple(value.numpy() for value in self._predict(*batch))


def _log_sum(logits: np.ndarray) -> np.ndarray:
    """The logarithm of the sum of the exponentials, float64 [N, 1]."""
    wide = logits.astype(np.float64)
    highest = wide.max(axis=1, keepdims=True)
    return highest + np.log(np.exp(wide - highest).sum(axis=1, keepdims=True))


def evaluate_run(run: Run, source: Source, *, batch_size: int, flip: bool = False) -> Evaluation:
    """Evaluate a loaded run on the test split of a data set, its own or another; `flip` is that of `Evaluator`.

    Raises:
        UserError: if that data has other classes than the run was trained on, or cannot be read.
    """
    check_classes(run.labels, source)
    strategy = tf.distribute.get_strategy()
    return Evaluator(run.model, source.test, run.preprocess, batch_size=batch_size, strategy=strategy, flip=flip)()
