"""The figures of a test, from its labels and logits alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_tf.core.text import printable

_BINS = 15  # of confidence, as most papers have


@dataclass(frozen=True)
class ClassMetrics:
    """Of one class.

    Attributes:
        label: the class.
        examples: how many were tested.
        recall: the share of them that is found.
        precision: the share of the answers naming it that are right; not a number if none does.
        taken: what its examples are most often taken for.
        times: how often that is.
    """

    label: int
    examples: int
    recall: float
    precision: float
    taken: int
    times: int


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Figures of one pass over a split.

    >>> answers = Evaluation(targets=np.array([0, 1, 1]), logits=np.array([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]]))
    >>> round(answers.top(1), 4), answers.recall.tolist(), answers.confusion.tolist()
    (0.6667, [1.0, 0.5], [[1, 0], [1, 1]])

    Attributes:
        targets: true class indices, int64 [N], in the order of the split.
        logits: float32 [N, C].
    """

    targets: np.ndarray
    logits: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain numbers: fractions in [0, 1], loss in nats."""
        return {
            "examples": len(self.targets),
            "top1": self.top(1),
            "top5": self.top(5),
            "loss": self.loss,
            "balanced_accuracy": self.balanced_accuracy,
            "calibration_error": self.calibration_error,
        }

    def __repr__(self) -> str:
        figures = f"top1={self.top(1):.4f}, top5={self.top(5):.4f}, loss={self.loss:.4f}"
        return f"Evaluation({figures}, examples={len(self.logits)}, classes={self.logits.shape[1]})"

    def __str__(self) -> str:
        figures = f"top-1 {self.top(1):.4f}  top-5 {self.top(5):.4f}  loss {self.loss:.4f}"
        return f"{figures}  balanced {self.balanced_accuracy:.4f}  on {len(self.targets):,} examples"

    def top(self, k: int) -> float:
        """Share of examples whose label is among the `k` largest logits; a tie counts against the label."""
        return float(np.mean(self.ranks < k))

    @property
    def ranks(self) -> np.ndarray:
        """For each example, how many other classes have a logit at least as large as the label's."""
        own = np.take_along_axis(self.logits, self.targets[:, None], axis=1)
        return np.sum(self.logits >= own, axis=1) - 1

    @property
    def loss(self) -> float:
        """Mean cross-entropy without label smoothing."""
        own = np.take_along_axis(self.logits, self.targets[:, None], axis=1)
        return float(np.mean(_log_sum(self.logits) - own))

    @property
    def confusion(self) -> np.ndarray:
        """How often examples of a class (row) are taken for another (column), int64 [C, C]."""
        counts = np.zeros((self.logits.shape[1],) * 2, np.int64)
        np.add.at(counts, (self.targets, self.predictions), 1)
        return counts

    @property
    def recall(self) -> np.ndarray:
        """The share of each class's examples that is found, float64 [C]; not a number for a class without any."""
        return _right_of(self.confusion, axis=1)

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have examples."""
        return float(np.nanmean(self.recall))

    @property
    def precision(self) -> np.ndarray:
        """The share of the answers naming a class that are right, float64 [C]; not a number where none does."""
        return _right_of(self.confusion, axis=0)

    @property
    def probabilities(self) -> np.ndarray:
        """The softmax of the logits, float64 [N, C]."""
        return np.exp(self.logits - _log_sum(self.logits))

    @property
    def calibration_error(self) -> float:
        """How far confidence and accuracy are apart in 15 equally wide bins (Guo et al. 2017, On Calibration)."""
        counts, confidence, accuracy = self.calibration
        return float(np.sum(counts * np.abs(accuracy - confidence)) / len(self.targets))

    @property
    def calibration(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each of the 15 bins: its answers, their mean confidence and how many are right; 0 where there are none."""
        confidence = self.probabilities[np.arange(len(self.targets)), self.predictions]
        bins = np.minimum((np.ceil(confidence * _BINS) - 1).astype(int), _BINS - 1)
        counts = np.bincount(bins, minlength=_BINS)
        filled = np.maximum(counts, 1)
        right = np.bincount(bins, self.predictions == self.targets, _BINS)
        return counts, np.bincount(bins, confidence, _BINS) / filled, right / filled

    def confused_pairs(self, count: int) -> list[tuple[int, int, int]]:
        """At most `count` of (class, what it is taken for, how often), the most frequent first."""
        counts = self.confusion
        np.fill_diagonal(counts, 0)
        order = np.argsort(-counts, axis=None, kind="stable")[:count]
        pairs = (np.unravel_index(place, counts.shape) for place in order)
        return [(int(true), int(taken), int(counts[true, taken])) for true, taken in pairs if counts[true, taken]]

    def classes(self, labels: Sequence[str]) -> dict[str, Any]:
        """`recall` of each class by its name, None without examples; `confusion`, rows and columns in their order."""
        recall = {
            name: None if np.isnan(share) else share for name, share in zip(labels, self.recall.tolist(), strict=True)
        }
        return {"recall": recall, "confusion": self.confusion.tolist()}

    @property
    def by_class(self) -> list[ClassMetrics]:
        """Of each class that has examples, the least recalled first."""
        counts, found = self.confusion, []
        for label, (recall, precision) in enumerate(zip(self.recall, self.precision, strict=True)):
            mistaken = counts[label].copy()
            mistaken[label] = 0
            other = int(mistaken.argmax())
            examples, times = int(counts[label].sum()), int(mistaken[other])
            found.append(ClassMetrics(label, examples, float(recall), float(precision), other, times))
        return sorted((each for each in found if each.examples), key=lambda each: each.recall)

    def describe_classes(self, labels: Sequence[str]) -> str:
        """A line a class, the least recalled first: its recall, its examples, and what it is most often taken for."""
        labels, lines = [printable(label) for label in labels], []
        for each in self.by_class:
            taken = f"  {each.times} taken for {labels[each.taken]}" if each.times else ""
            lines.append(f"  {each.recall:.4f} of {each.examples:>6,}  {labels[each.label]}{taken}")
        return "\n".join(lines)

    @property
    def predictions(self) -> np.ndarray:
        """The class with the largest logit, int64 [N]."""
        return self.logits.argmax(axis=1)

    def mistakes(self, count: int, *, true: int | None = None, taken: int | None = None) -> list[int]:
        """Places of at most `count` wrong answers, those furthest above the right class first.

        With `true` and `taken`, those examples of the one class that are taken for the other.
        """
        own = np.take_along_axis(self.logits, self.targets[:, None], axis=1)[:, 0]
        wrong = self.predictions != self.targets
        if true is not None:
            wrong &= (self.targets == true) & (self.predictions == taken)
        places = np.flatnonzero(wrong)
        excess = (self.logits.max(axis=1) - own)[places]
        return places[np.argsort(-excess, kind="stable")[:count]].tolist()


def _right_of(counts: np.ndarray, *, axis: int) -> np.ndarray:
    """The diagonal as a share of the sums over `axis`."""
    sums = counts.sum(axis=axis)
    return np.divide(np.diag(counts), sums, out=np.full(len(counts), np.nan), where=sums > 0)


def _log_sum(logits: np.ndarray) -> np.ndarray:
    """The logarithm of the sum of the exponentials, float64 [N, 1]."""
    wide = logits.astype(np.float64)
    highest = wide.max(axis=1, keepdims=True)
    return highest + np.log(np.exp(wide - highest).sum(axis=1, keepdims=True))
