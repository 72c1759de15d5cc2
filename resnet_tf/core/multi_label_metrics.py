"""Metrics of multi-label classification: average precision, F1, and a threshold for each class."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from resnet_tf.core.calibration import Calibration
from resnet_tf.core.calibration_fit import fit_vector_scaling
from resnet_tf.core.metrics import Evaluation, rank
from resnet_tf.core.reliability import brier_score, calibration_bins, calibration_error
from resnet_tf.core.text import counted, shortened

DEFAULT_THRESHOLD = 0.5  # probability from which on a class is selected
_MAX_NAME = 60  # characters of a class name in a line


@dataclass(frozen=True)
class LabelMetrics:
    """Metrics of one class.

    Attributes:
        index: of the class.
        examples: number of examples that have the class.
        average_precision: area under the precision-recall curve, as a sum over its steps; NaN without examples.
        precision: fraction of the examples for which the class is selected that have it; NaN if it is never selected.
        recall: fraction of the examples of the class for which it is selected; NaN without examples.
        f1: harmonic mean of precision and recall; 0 if both counts are 0.
        threshold: probability from which on the class is selected.
    """

    index: int
    examples: int
    average_precision: float
    precision: float
    recall: float
    f1: float
    threshold: float


@dataclass(frozen=True, repr=False, eq=False)
class MultiLabelEvaluation(Evaluation):
    """Metrics of multi-label targets, equal to those of scikit-learn.

    >>> targets = np.array([[True, False], [True, True], [False, False]])
    >>> logits = np.array([[3.0, -1.0], [2.0, -2.0], [-3.0, -3.0]])
    >>> evaluation = MultiLabelEvaluation(targets, logits)
    >>> evaluation.average_precision.tolist(), round(evaluation.f1_micro, 4), evaluation.f1_macro
    ([1.0, 0.5], 0.8, 0.5)

    Attributes:
        targets: the classes of each example, bool [N, C], in the order of the split.
        logits: float32 [N, C], finite.
        thresholds: probability from which on each class is selected, float [C].
    """

    thresholds: np.ndarray = field(default_factory=lambda: np.array(DEFAULT_THRESHOLD))

    main_metric: ClassVar[str] = "mean_average_precision"
    _expected_targets: ClassVar[str] = "bool [N, C]"

    @classmethod
    def _fit(cls, targets: np.ndarray, logits: np.ndarray) -> bool:
        return targets.dtype.kind == "b" and targets.shape == logits.shape

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "thresholds", np.broadcast_to(self.thresholds, self.logits.shape[1:]))

    @property
    def _are_finite(self) -> np.ndarray:
        return np.isfinite(self.logits).all(axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as plain numbers: fractions in [0, 1], loss in nats."""
        return {
            "examples": len(self.targets),
            "top1": self.top(1),
            "top5": self.top(5),
            "loss": self.loss,
            "mean_average_precision": self.mean_average_precision,
            "f1_micro": self.f1_micro,
            "f1_macro": self.f1_macro,
        }

    def __repr__(self) -> str:
        metrics = f"mAP={self.mean_average_precision:.4f}, f1_micro={self.f1_micro:.4f}, loss={self.loss:.4f}"
        return f"MultiLabelEvaluation({metrics}, examples={len(self.logits)}, classes={self.logits.shape[1]})"

    def __str__(self) -> str:
        metrics = f"mAP {self.mean_average_precision:.4f}  F1 {self.f1_micro:.4f} (micro), {self.f1_macro:.4f} (macro)"
        return f"{metrics}  loss {self.loss:.4f}  on {counted(len(self.targets), 'example')}"

    @property
    def loss(self) -> float:
        """Return the mean sigmoid cross-entropy over examples and classes, in nats, without label smoothing."""
        wide = self.logits.astype(np.float64)
        return float(np.mean(np.maximum(wide, 0) - wide * self.targets + np.log1p(np.exp(-np.abs(wide)))))

    @property
    def probabilities(self) -> np.ndarray:
        """Return the sigmoid of the calibrated logits, float64 [N, C]."""
        return _sigmoid(self.calibrated_logits)

    @property
    def energy(self) -> np.ndarray:
        """Return the energy of each example, float64 [N], which is higher for unknown ones; see `Targets.energy`."""
        return -np.logaddexp(0, self.calibrated_logits).sum(axis=1)

    @property
    def calibration_error(self) -> float:
        """Return the expected calibration error of all decisions, over 15 bins of their probabilities."""
        return calibration_error(_sigmoid(self.logits).ravel(), self.targets.ravel())

    @property
    def confidence_bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return count, mean probability and frequency of the decisions in each of the 15 bins, [15] each."""
        return calibration_bins(_sigmoid(self.logits).ravel(), self.targets.ravel())

    @property
    def brier_score(self) -> float:
        """Return the mean squared error of the probabilities of all decisions, in [0, 1]."""
        return brier_score(self.targets, _sigmoid(self.logits))

    @property
    def strata(self) -> np.ndarray:
        """Return the rarest class of each example, int64 [N]; -1 for an example without a class."""
        counts = np.where(self.targets, self.targets.sum(axis=0), len(self.targets) + 1)
        return np.where(self.targets.any(axis=1), counts.argmin(axis=1), -1)

    def fit_calibration(self) -> Calibration:
        """Return temperature and bias of each class, see `fit_vector_scaling`."""
        temperatures, biases = fit_vector_scaling(self.targets, self.logits)
        return Calibration(temperatures=tuple(temperatures.tolist()), biases=tuple(biases.tolist()))

    @property
    def ranks(self) -> np.ndarray:
        """Return, for each example with a class, how many are predicted before its best one, int64; see `rank`."""
        labeled = self.targets.any(axis=1)
        targets, logits = self.targets[labeled], self.calibration.ranking(self.logits[labeled])
        return rank(logits, np.where(targets, logits, -np.inf).argmax(axis=1))

    def top(self, k: int) -> float:
        """Return the fraction of the examples with a class of which one is among the `k` first, see `rank`."""
        ranks = self.ranks
        return float(np.mean(ranks < k)) if len(ranks) else 0.0

    @functools.cached_property
    def average_precision(self) -> np.ndarray:
        """Return the average precision of each class, float64 [C]; NaN for a class without examples."""
        columns = zip(self.targets.T, self.logits.T, strict=True)
        return np.array([_average_precision(targets, scores) for targets, scores in columns])

    @property
    def mean_average_precision(self) -> float:
        """Return the mean average precision of the classes that have examples; 0 if none has."""
        known = self.average_precision[~np.isnan(self.average_precision)]
        return float(known.mean()) if len(known) else 0.0

    @functools.cached_property
    def selected(self) -> np.ndarray:
        """Return the classes whose probability reaches their threshold, bool [N, C]."""
        return self.probabilities >= self.thresholds

    @property
    def f1_micro(self) -> float:
        """Return the F1 score of all decisions together; 0 without a selected or a true class."""
        hits, total = np.sum(self.selected & self.targets), np.sum(self.selected) + np.sum(self.targets)
        return float(2 * hits / max(total, 1))

    @property
    def f1(self) -> np.ndarray:
        """Return the F1 score of each class, float64 [C]; 0 for a class without selected or true examples."""
        hits = np.sum(self.selected & self.targets, axis=0)
        return 2 * hits / np.maximum(self.selected.sum(axis=0) + self.targets.sum(axis=0), 1)

    @property
    def f1_macro(self) -> float:
        """Return the mean F1 score of all classes."""
        return float(self.f1.mean())

    @property
    def recall(self) -> np.ndarray:
        """Return the recall of each class, float64 [C]; NaN for a class without examples."""
        return _fractions(np.sum(self.selected & self.targets, axis=0), self.targets.sum(axis=0))

    @property
    def precision(self) -> np.ndarray:
        """Return the precision of each class, float64 [C]; NaN for a class that is never selected."""
        return _fractions(np.sum(self.selected & self.targets, axis=0), self.selected.sum(axis=0))

    @property
    def co_occurrence(self) -> np.ndarray:
        """Return the number of examples that have both of two classes, int64 [C, C]."""
        targets = self.targets.astype(np.int64)
        return targets.T @ targets

    def with_chosen_thresholds(self) -> "MultiLabelEvaluation":
        """Return the metrics with the thresholds of `choose_thresholds`."""
        return dataclasses.replace(self, thresholds=self.choose_thresholds())

    def choose_thresholds(self) -> np.ndarray:
        """Return the probability of each class from which on it has the largest F1 score here, float64 [C].

        A threshold lies in the middle between two probabilities that occur. A class without examples, or with nothing
        else, has 0.5.
        """
        columns = zip(self.targets.T, self.probabilities.T, strict=True)
        return np.array([_best_threshold(targets, probabilities) for targets, probabilities in columns])

    def classes(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return `average_precision`, `precision`, `recall`, `f1` and `threshold` by class name; None without any."""
        columns = {
            "average_precision": self.average_precision,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "threshold": self.thresholds,
        }
        return {
            key: {name: None if np.isnan(value) else value for name, value in zip(labels, values.tolist(), strict=True)}
            for key, values in columns.items()
        }

    @property
    def by_class(self) -> list[LabelMetrics]:
        """Return the metrics of each class that has examples, in the order of their average precision."""
        columns = (self.average_precision, self.precision, self.recall, self.f1, self.thresholds)
        counts = self.targets.sum(axis=0).tolist()
        rows = zip(range(len(counts)), counts, *(column.tolist() for column in columns), strict=True)
        found = [LabelMetrics(*row) for row in rows]
        return sorted((each for each in found if each.examples), key=lambda each: each.average_precision)

    def describe_classes(self, labels: Sequence[str]) -> str:
        """Return one line for each class, in the order of average precision."""
        lines = ["  AP      F1      threshold  examples"]
        for each in self.by_class:
            numbers = f"  {each.average_precision:.4f}  {each.f1:.4f}  {each.threshold:9.4f}  {each.examples:>8,}"
            lines.append(f"{numbers}  {shortened(labels[each.index], _MAX_NAME)}")
        return "\n".join(lines)

    def worst_errors(self, count: int) -> list[int]:
        """Return the indices of at most `count` examples with wrong decisions, the most confident ones first."""
        wrong = np.flatnonzero((self.selected != self.targets).any(axis=1))
        margins = np.where(self.targets[wrong], -self.logits[wrong], self.logits[wrong]).max(axis=1, initial=-np.inf)
        return wrong[np.argsort(-margins, kind="stable")[:count]].tolist()


def precision_recall_curve(targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall at each distinct score as a threshold, in descending order of the scores.

    Args:
        targets: whether each example has the class, bool [N], at least one of them True.
        scores: [N].
    """
    _, hits, selected = _cumulative(targets, scores)
    return hits / selected, hits / targets.sum()


def _cumulative(targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct scores in descending order, with the numbers of right and all examples of at least each."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # the last of equal scores
    return scores[order][ends], np.cumsum(targets[order])[ends], ends + 1


def _average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    if not targets.any():
        return float("nan")
    precision, recall = precision_recall_curve(targets, scores)
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def _best_threshold(targets: np.ndarray, probabilities: np.ndarray) -> float:
    if not targets.any() or targets.all():
        return DEFAULT_THRESHOLD
    distinct, hits, selected = _cumulative(targets, probabilities)
    best = int(np.argmax(2 * hits / (selected + targets.sum())))
    below = distinct[best + 1] if best + 1 < len(distinct) else 0.0
    return float((distinct[best] + below) / 2)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    smaller = np.exp(-np.abs(wide))  # of a sum with 1, which would cancel for small probabilities
    return np.where(wide >= 0, 1, smaller) / (1 + smaller)


def _fractions(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
