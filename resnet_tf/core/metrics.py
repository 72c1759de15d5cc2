"""Classification metrics, computed from labels and logits."""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.calibration_fit import fit_temperature
from resnet_tf.core.errors import UserError
from resnet_tf.core.reliability import brier_score, calibration_bins, calibration_error
from resnet_tf.core.text import counted, shortened, shows_top5

# Metrics by their names in `Evaluation.to_dict` -> titles in reports.
METRIC_TITLES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "mean_average_precision": "mean average precision",
    "f1_micro": "F1 of all decisions",
    "f1_macro": "mean F1 of the classes",
    "loss": "loss (nats)",
    "brier_score": "Brier score",
    "calibration_error": "calibration error",
}
# Metrics that stand for an evaluation, fractions in [0, 1].
MAIN_METRICS = ("top1", "mean_average_precision")

_MAX_NAME = 60  # characters of a class name in a line
_MAX_NAMED = 3  # examples in a message


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class.

    Attributes:
        index: of the class.
        examples: number of examples of the class.
        recall: fraction of these examples that are predicted correctly.
        precision: fraction of the predictions of the class that are correct; NaN if the class is never predicted.
        confused_with: index of the other class that its examples are most often predicted as.
        confusions: number of these predictions.
    """

    index: int
    examples: int
    recall: float
    precision: float
    confused_with: int
    confusions: int


class NonFiniteError(UserError):
    """Logits that are not a number or infinite, as those of a diverged network.

    Args:
        indices: of the examples, in the order of the split.
        count: number of examples of the split.
        locate: returns the name of the example with an index.

    Attributes:
        indices: of the examples.
        count: number of examples of the split.
    """

    def __init__(self, indices: Sequence[int], count: int, locate: Callable[[int], str] = "example {}".format):
        self.indices, self.count = tuple(indices), count
        names = ", ".join(locate(index) for index in self.indices[:_MAX_NAMED])
        more = f" and {len(self.indices) - _MAX_NAMED:,} more" if len(self.indices) > _MAX_NAMED else ""
        super().__init__(
            f"{len(self.indices):,} of {counted(count, 'example')} have logits that are not finite: {names}{more}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the message and the attributes: `Exception` would pass the message as `indices`."""
        return UserError.__new__, (type(self), *self.args), vars(self)


@dataclass(frozen=True, repr=False, eq=False)  # arrays have neither a truth value of `==` nor a hash
class Evaluation(abc.ABC):
    """Metrics of one pass over a split, of single-label or multi-label targets.

    Loss, Brier score and calibration error are those of the logits as they are; `calibrated` has those of the
    probabilities.

    Attributes:
        targets: labels in the order of the split, see `core.targets`.
        logits: float32 [N, C].
        calibration: map from the logits to `probabilities`.
        main_metric: name of the metric in `to_dict` that stands for the evaluation, one of `MAIN_METRICS`.

    Raises:
        UserError: for labels of another form, or of classes that the logits do not have.
        NonFiniteError: if a logit that decides about the metrics is not a number or infinite.
    """

    targets: np.ndarray
    logits: np.ndarray
    calibration: Calibration = field(default=UNCALIBRATED, kw_only=True)

    main_metric: ClassVar[str]
    _expected_targets: ClassVar[str]

    def __post_init__(self) -> None:
        targets, logits = np.asarray(self.targets), np.asarray(self.logits)
        if logits.ndim != 2 or not self._fit(targets, logits):
            raise UserError(
                f"labels are {targets.dtype} {list(targets.shape)} and logits {list(logits.shape)}; expected labels "
                f"{self._expected_targets}, and logits [N, C]"
            )
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "logits", logits)
        indices = np.flatnonzero(~self._are_finite)
        if len(indices):
            raise NonFiniteError(indices.tolist(), len(self.logits))

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as plain numbers: fractions in [0, 1], loss in nats."""

    @property
    @abc.abstractmethod
    def loss(self) -> float:
        """Return the mean cross-entropy in nats, without label smoothing."""

    @property
    @abc.abstractmethod
    def probabilities(self) -> np.ndarray:
        """Return the calibrated probabilities of the classes, float64 [N, C]."""

    @property
    @abc.abstractmethod
    def energy(self) -> np.ndarray:
        """Return the energy of each example, float64 [N], which is higher for unknown ones; see `Targets.energy`."""

    @property
    @abc.abstractmethod
    def calibration_error(self) -> float:
        """Return the expected calibration error over 15 bins of equal width (Guo et al. 2017, On Calibration)."""

    @property
    @abc.abstractmethod
    def confidence_bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return count, mean confidence and accuracy of each of the 15 bins, [15] each; 0 for an empty bin."""

    @property
    @abc.abstractmethod
    def brier_score(self) -> float:
        """Return the Brier score, see `core.reliability.brier_score`."""

    @property
    @abc.abstractmethod
    def strata(self) -> np.ndarray:
        """Return a class of each example by which a random division of the split is stratified, int64 [N]."""

    @abc.abstractmethod
    def fit_calibration(self) -> Calibration:
        """Return the temperatures and biases that minimize the loss of this evaluation."""

    @property
    def calibrated_logits(self) -> np.ndarray:
        """Return the logits of `probabilities`, float64 [N, C]."""
        return self.calibration.apply(self.logits.astype(np.float64))

    @property
    def calibrated(self) -> "Evaluation":
        """Return the evaluation whose logits are the calibrated ones, so that its loss is that of `probabilities`."""
        return self.with_logits(self.calibrated_logits)

    def with_logits(self, logits: np.ndarray) -> "Evaluation":
        """Return the evaluation of other logits of the same examples, without calibration."""
        return dataclasses.replace(self, logits=logits, calibration=UNCALIBRATED)

    def part(self, indices: np.ndarray) -> "Evaluation":
        """Return the evaluation of some of the examples."""
        return dataclasses.replace(self, targets=self.targets[indices], logits=self.logits[indices])

    @property
    @abc.abstractmethod
    def ranks(self) -> np.ndarray:
        """Return how many wrong classes are predicted before the first right one, int64; see `rank`."""

    @abc.abstractmethod
    def classes(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return metrics by class name, ready for JSON."""

    @abc.abstractmethod
    def describe_classes(self, labels: Sequence[str]) -> str:
        """Return one line for each class."""

    def with_chosen_thresholds(self) -> "Evaluation":
        """Return the metrics with the thresholds of `MultiLabelEvaluation.choose_thresholds`, if there are any."""
        return self

    @classmethod
    @abc.abstractmethod
    def _fit(cls, targets: np.ndarray, logits: np.ndarray) -> bool:
        """Return True if labels have the form of the class, and belong to logits [N, C]."""

    @property
    @abc.abstractmethod
    def _are_finite(self) -> np.ndarray:
        """Return False for examples whose decisive logits are not finite, bool [N]."""

    def top(self, k: int) -> float:
        """Return the fraction of examples of which a class is among the `k` first by their logits, see `rank`."""
        return float(np.mean(self.ranks < k))


class SingleLabelEvaluation(Evaluation):
    """Metrics of classes that exclude each other.

    >>> logits = np.array([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    >>> evaluation = SingleLabelEvaluation(targets=np.array([0, 1, 1]), logits=logits)
    >>> round(evaluation.top(1), 4), evaluation.recall.tolist(), evaluation.confusion.tolist()
    (0.6667, [1.0, 0.5], [[1, 0], [1, 1]])

    Attributes:
        targets: true class indices, int64 [N], in the order of the split.
        logits: float32 [N, C]; the largest of each example and that of its target are finite.
    """

    main_metric: ClassVar[str] = "top1"
    _expected_targets: ClassVar[str] = "integers [N] from 0 to C - 1"

    @classmethod
    def _fit(cls, targets: np.ndarray, logits: np.ndarray) -> bool:
        is_known = targets.dtype.kind in "iu" and targets.shape == logits.shape[:1]
        return is_known and bool(np.all((targets >= 0) & (targets < logits.shape[1])))

    @property
    def _are_finite(self) -> np.ndarray:
        decisive = np.stack([self.logits.max(axis=1), self._target_logits[:, 0]])  # the maximum with NaN is NaN
        return np.isfinite(decisive).all(axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as plain numbers: fractions in [0, 1], loss in nats."""
        return {
            "examples": len(self.targets),
            "top1": self.top(1),
            "top5": self.top(5),
            "loss": self.loss,
            "balanced_accuracy": self.balanced_accuracy,
            "calibration_error": self.calibration_error,
        }

    def __repr__(self) -> str:
        metrics = f"top1={self.top(1):.4f}, top5={self.top(5):.4f}, loss={self.loss:.4f}"
        return f"Evaluation({metrics}, examples={len(self.logits)}, classes={self.logits.shape[1]})"

    def __str__(self) -> str:
        top5 = f"  top-5 {self.top(5):.4f}" if shows_top5(self.logits.shape[1]) else ""
        metrics = f"loss {self.loss:.4f}  balanced {self.balanced_accuracy:.4f}"
        return f"top-1 {self.top(1):.4f}{top5}  {metrics}  on {counted(len(self.targets), 'example')}"

    @property
    def ranks(self) -> np.ndarray:
        """Return how many classes are predicted before the target, int64 [N]; see `rank`."""
        return rank(self.logits, self.targets)

    @property
    def loss(self) -> float:
        """Return the mean cross-entropy in nats, without label smoothing."""
        return float(np.mean(_log_sum_exp(self.logits) - self._target_logits))

    @property
    def confusion(self) -> np.ndarray:
        """Return the counts of each target class (row) by predicted class (column), int64 [C, C]."""
        counts = np.zeros((self.logits.shape[1],) * 2, np.int64)
        np.add.at(counts, (self.targets, self.predictions), 1)
        return counts

    @property
    def recall(self) -> np.ndarray:
        """Return the recall of each class, float64 [C]; NaN for a class without examples."""
        return self._fractions_correct(self.targets)

    @property
    def balanced_accuracy(self) -> float:
        """Return the mean recall of the classes that have examples."""
        return float(np.nanmean(self.recall))

    @property
    def precision(self) -> np.ndarray:
        """Return the precision of each class, float64 [C]; NaN for a class that is never predicted."""
        return self._fractions_correct(self.predictions)

    @property
    def probabilities(self) -> np.ndarray:
        """Return the softmax of the calibrated logits, float64 [N, C]."""
        return _softmax(self.calibrated_logits)

    @property
    def energy(self) -> np.ndarray:
        """Return the energy of each example, float64 [N], which is higher for unknown ones; see `Targets.energy`."""
        return -self.calibration.temperature * _log_sum_exp(self.calibrated_logits)[:, 0]

    @property
    def calibration_error(self) -> float:
        """Return the expected calibration error over 15 bins of equal width (Guo et al. 2017, On Calibration)."""
        return calibration_error(self._confidence, self.is_correct)

    @property
    def confidence_bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return count, mean confidence and accuracy of each of the 15 bins, [15] each; 0 for an empty bin."""
        return calibration_bins(self._confidence, self.is_correct)

    @property
    def brier_score(self) -> float:
        """Return the mean of the sum over the classes of squared errors of the probabilities, in [0, 2]."""
        return brier_score(self.targets, _softmax(self.logits))

    @property
    def confidence(self) -> np.ndarray:
        """Return the calibrated probability of the predicted class of each example, float64 [N]."""
        return self.probabilities.max(axis=1)

    @property
    def is_correct(self) -> np.ndarray:
        """Return True for each correct prediction, bool [N]."""
        return self.predictions == self.targets

    @property
    def strata(self) -> np.ndarray:
        """Return the class of each example, int64 [N]."""
        return self.targets

    def fit_calibration(self) -> Calibration:
        """Return the temperature that minimizes the loss of this evaluation, see `fit_temperature`."""
        return Calibration(temperatures=(fit_temperature(self.targets, self.logits),))

    @property
    def _confidence(self) -> np.ndarray:
        return _softmax(self.logits).max(axis=1)

    def confused_pairs(self, count: int) -> list[tuple[int, int, int]]:
        """Return at most `count` of (target class, predicted class, number), the most frequent first."""
        wrong = ~self.is_correct
        # Not from `confusion`, which takes 80 GB for 100,000 classes.
        pairs, counts = np.unique([self.targets[wrong], self.predictions[wrong]], axis=1, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:count]
        return list(zip(*pairs[:, order].tolist(), counts[order].tolist(), strict=True))

    def classes(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return `recall`, by class name, None without examples, and `confusion`, in the order of `labels`."""
        recall = {
            name: None if np.isnan(value) else value for name, value in zip(labels, self.recall.tolist(), strict=True)
        }
        return {"recall": recall, "confusion": self.confusion.tolist()}

    @property
    def by_class(self) -> list[ClassMetrics]:
        """Return the metrics of each class that has examples, in the order of their recall."""
        most: dict[int, tuple[int, int]] = {}
        for target, predicted, number in self.confused_pairs(len(self.targets)):
            most.setdefault(target, (predicted, number))
        counts, recall, precision = np.bincount(self.targets), self.recall.tolist(), self.precision.tolist()
        found = [
            ClassMetrics(each, int(counts[each]), recall[each], precision[each], *most.get(each, (0, 0)))
            for each in np.flatnonzero(counts).tolist()
        ]
        return sorted(found, key=lambda each: each.recall)

    def describe_classes(self, labels: Sequence[str]) -> str:
        """Return one line for each class, in the order of recall: recall, examples and most frequent confusion."""
        labels, lines = [shortened(label, _MAX_NAME) for label in labels], []
        for each in self.by_class:
            confusion = f"  {each.confusions} predicted as {labels[each.confused_with]}" if each.confusions else ""
            lines.append(f"  {each.recall:.4f} of {each.examples:>6,}  {labels[each.index]}{confusion}")
        return "\n".join(lines)

    @property
    def predictions(self) -> np.ndarray:
        """Return the class with the largest logit of each example, int64 [N]."""
        return self.logits.argmax(axis=1)

    def worst_errors(self, count: int, *, pair: tuple[int, int] | None = None) -> list[int]:
        """Return the indices of at most `count` errors, in descending order of the excess over the target's logit.

        Args:
            count: largest number of errors.
            pair: target class and predicted class of the errors; None for all errors.
        """
        wrong = self.predictions != self.targets
        if pair is not None:
            wrong &= (self.targets == pair[0]) & (self.predictions == pair[1])
        indices = np.flatnonzero(wrong)
        excess = (self.logits.max(axis=1, keepdims=True) - self._target_logits)[indices, 0]
        return indices[np.argsort(-excess, kind="stable")[:count]].tolist()

    def _fractions_correct(self, of: np.ndarray) -> np.ndarray:
        """Return the fraction of correct predictions by class, float64 [C]; NaN for a class without examples.

        Args:
            of: class of each example, int64 [N].
        """
        classes = self.logits.shape[1]
        counts = np.bincount(of, minlength=classes)
        correct = np.bincount(of[self.is_correct], minlength=classes)
        return np.divide(correct, counts, out=np.full(classes, np.nan), where=counts > 0)

    @property
    def _target_logits(self) -> np.ndarray:
        """Return the logits of the targets, float32 [N, 1]."""
        return np.take_along_axis(self.logits, self.targets[:, None], axis=1)


def rank(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return how many classes have a larger logit than the given one, or an equal one and a smaller index, int64 [N].

    A rank of 0 is that of `argmax`: quantized networks have many equal logits.

    Args:
        logits: float [N, C].
        classes: a class of each example, int64 [N].
    """
    own = np.take_along_axis(logits, classes[:, np.newaxis], axis=1)
    is_smaller_index = np.arange(logits.shape[1]) < classes[:, np.newaxis]
    return np.sum((logits > own) | ((logits == own) & is_smaller_index), axis=1)


def _softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits - _log_sum_exp(logits))


def _log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the sum of the exponentials, float64 [N, 1]."""
    wide = logits.astype(np.float64)
    highest = wide.max(axis=1, keepdims=True)
    return highest + np.log(np.exp(wide - highest).sum(axis=1, keepdims=True))
