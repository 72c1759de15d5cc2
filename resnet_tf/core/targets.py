"""Targets: the two forms that the labels of a data set can have, and everything that follows from the form.

- Single-label, int64 [N]: each example has one class. The network is a softmax over the classes.
- Multi-label, bool [N, C]: each example has any number of classes. The network is a sigmoid for each class.

Other modules handle labels as arrays, and call a method here for whatever depends on the form.
"""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import Evaluation, SingleLabelEvaluation
from resnet_tf.core.multi_label_metrics import DEFAULT_THRESHOLD, MultiLabelEvaluation
from resnet_tf.core.text import counted


class Targets(abc.ABC):
    """A form of labels. It has no state."""

    @abc.abstractmethod
    def class_counts(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Return the number of examples of each class, int64 [C]."""

    @abc.abstractmethod
    def present(self, labels: np.ndarray) -> np.ndarray:
        """Return the indices of the classes that occur, in order, int64."""

    @abc.abstractmethod
    def renumber(self, labels: np.ndarray, indices: np.ndarray, num_classes: int) -> np.ndarray:
        """Return labels in which class k has the index `indices[k]` among `num_classes` classes."""

    @abc.abstractmethod
    def evaluate(
        self,
        labels: np.ndarray,
        logits: np.ndarray,
        *,
        thresholds: Sequence[float] | None = None,
        calibration: Calibration = UNCALIBRATED,
    ) -> Evaluation:
        """Return the metrics of logits, float32 [N, C].

        Args:
            labels: see the module.
            logits: float32 [N, C].
            thresholds: probability from which on each class of multi-label targets is selected, [C]; None for 0.5.
            calibration: map from logits to probabilities.
        """

    @abc.abstractmethod
    def thresholds(self, evaluation: Evaluation | None, num_classes: int) -> list[float] | None:
        """Return the probability from which on each class is selected, or None for single-label targets.

        Args:
            evaluation: metrics with thresholds; None gives the default.
            num_classes: number of classes C.
        """

    @abc.abstractmethod
    def names(self, label: Any, class_names: Any) -> list[str]:
        """Return the names of the classes of one example."""

    @abc.abstractmethod
    def encode(self, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
        """Return a batch of labels as the proportion of each class, float32 [B, C], in graph operations."""

    @abc.abstractmethod
    def mix(self, own: tf.Tensor, others: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """Return the targets of blended examples, float32 [B, C].

        Args:
            own: encoded labels of the examples, float32 [B, C].
            others: encoded labels of their partners, float32 [B, C].
            weight: fraction of each example that is its own, float32 [B, 1] in [0, 1].
        """

    @abc.abstractmethod
    def smooth(self, targets: tf.Tensor, amount: float) -> tf.Tensor:
        """Return targets, float32 [B, C], of which a fraction `amount` is spread evenly over all outcomes."""

    @abc.abstractmethod
    def probabilities(self, logits: tf.Tensor, calibration: Calibration = UNCALIBRATED) -> tf.Tensor:
        """Return the calibrated probabilities of the classes, float32 [B, C]."""

    @abc.abstractmethod
    def energy(self, logits: tf.Tensor, calibration: Calibration = UNCALIBRATED) -> tf.Tensor:
        """Return the energy of each example, float32 [B], which is higher for examples unlike those of the training.

        -T log sum exp(logits / T) of single-label targets, where T is the temperature; the sum over the classes of
        -log(1 + exp(calibrated logit)) of multi-label targets.

        References:
            Liu et al., Energy-based Out-of-distribution Detection, 2020.
            Wang et al., Can multi-label classification networks know what they don't know?, 2021.
        """


class _SingleLabel(Targets):
    def class_counts(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        return np.bincount(labels, minlength=num_classes)

    def present(self, labels: np.ndarray) -> np.ndarray:
        return np.unique(labels)

    def renumber(self, labels: np.ndarray, indices: np.ndarray, num_classes: int) -> np.ndarray:
        return indices[labels]

    def evaluate(
        self,
        labels: np.ndarray,
        logits: np.ndarray,
        *,
        thresholds: Sequence[float] | None = None,
        calibration: Calibration = UNCALIBRATED,
    ) -> SingleLabelEvaluation:
        return SingleLabelEvaluation(labels, logits, calibration=calibration)

    def thresholds(self, evaluation: Evaluation | None, num_classes: int) -> None:
        return None

    def names(self, label: Any, class_names: Any) -> list[str]:
        return [class_names[label]]

    def encode(self, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
        return tf.one_hot(labels, num_classes)

    def mix(self, own: tf.Tensor, others: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        return weight * own + (1.0 - weight) * others

    def smooth(self, targets: tf.Tensor, amount: float) -> tf.Tensor:
        return targets * (1.0 - amount) + amount / targets.shape[-1]  # Szegedy et al. 2015

    def probabilities(self, logits: tf.Tensor, calibration: Calibration = UNCALIBRATED) -> tf.Tensor:
        return tf.nn.softmax(calibration.apply(logits))

    def energy(self, logits: tf.Tensor, calibration: Calibration = UNCALIBRATED) -> tf.Tensor:
        return -calibration.temperature * tf.reduce_logsumexp(calibration.apply(logits), axis=1)


class _MultiLabel(Targets):
    def class_counts(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        return labels.sum(axis=0, dtype=np.int64)

    def present(self, labels: np.ndarray) -> np.ndarray:
        return np.flatnonzero(labels.any(axis=0))

    def renumber(self, labels: np.ndarray, indices: np.ndarray, num_classes: int) -> np.ndarray:
        renumbered = np.zeros((len(labels), num_classes), bool)
        renumbered[:, indices] = labels
        return renumbered

    def evaluate(
        self,
        labels: np.ndarray,
        logits: np.ndarray,
        *,
        thresholds: Sequence[float] | None = None,
        calibration: Calibration = UNCALIBRATED,
    ) -> MultiLabelEvaluation:
        chosen = np.asarray(DEFAULT_THRESHOLD if thresholds is None else thresholds)
        return MultiLabelEvaluation(labels, logits, chosen, calibration=calibration)

    def thresholds(self, evaluation: Evaluation | None, num_classes: int) -> list[float]:
        if not isinstance(evaluation, MultiLabelEvaluation):
            return [DEFAULT_THRESHOLD] * num_classes
        return evaluation.thresholds.tolist()

    def names(self, label: Any, class_names: Any) -> list[str]:
        return [class_names[index] for index in np.flatnonzero(label)]

    def encode(self, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
        return tf.cast(labels, tf.float32)

    def mix(self, own: tf.Tensor, others: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        # The union: both examples can be seen, unless one has no part at all.
        return tf.maximum(tf.where(weight > 0.0, own, 0.0), tf.where(weight < 1.0, others, 0.0))

    def smooth(self, targets: tf.Tensor, amount: float) -> tf.Tensor:
        return targets * (1.0 - amount) + amount / 2  # each class is a decision between two outcomes

    def probabilities(self, logits: tf.Tensor, calibration: Calibration = UNCALIBRATED) -> tf.Tensor:
        return tf.sigmoid(calibration.apply(logits))

    def energy(self, logits: tf.Tensor, calibration: Calibration = UNCALIBRATED) -> tf.Tensor:
        return -tf.reduce_sum(tf.nn.softplus(calibration.apply(logits)), axis=1)


SINGLE_LABEL: Targets = _SingleLabel()
MULTI_LABEL: Targets = _MultiLabel()


def targets_with(thresholds: Any) -> Targets:
    """Return the form of a network's targets: multi-label if it has thresholds, and single-label for None."""
    return SINGLE_LABEL if thresholds is None else MULTI_LABEL


def check_thresholds(thresholds: Sequence[Any], num_classes: int) -> tuple[float, ...]:
    """Return thresholds as a tuple, checked to be one probability in [0, 1] for each class.

    Raises:
        UserError: for another number of them, or another value.
    """
    if len(thresholds) != num_classes:
        raise UserError(f"{counted(len(thresholds), 'threshold')} for {counted(num_classes, 'class')}")
    if wrong := [
        each for each in thresholds if not (isinstance(each, int | float | np.number) and 0 <= each <= 1)
    ]:  # nor is NaN
        raise UserError(f"a threshold is {wrong[0]!r}; expected a probability in [0, 1]")
    return tuple(map(float, thresholds))


def targets_of(labels: np.ndarray | tf.Tensor) -> Targets:
    """Return the form of labels, an array of one of the two shapes of the module."""
    return SINGLE_LABEL if len(labels.shape) == 1 else MULTI_LABEL
