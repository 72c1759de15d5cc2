"""Likely label errors, by confident learning (Northcutt et al. 2021) with cleanlab.

A weak classifier disagrees with many correct labels. Of those that cleanlab finds, an example is reported if its label
is wrong with a probability of 1/4 or more, by Bayes' theorem, where 3 % of all labels are wrong, as in ten well-known
test sets (Northcutt et al., Pervasive label errors in test sets, 2021), evenly for all classes.
"""

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.data.audit.probe import FOLDS

_PRIOR = 0.03  # fraction of wrong labels
_CERTAINTY = 0.25  # smallest score of a reported example


@dataclass(frozen=True)
class LabelError:
    """Example whose label is likely wrong.

    Attributes:
        index: index of the example.
        score: probability that the label is wrong, in [0, 1]; with several labels, the least likely one.
        given: indices of the given classes.
        suggested: indices of the classes that the probe predicts.
    """

    index: int
    score: float
    given: tuple[int, ...]
    suggested: tuple[int, ...]


def import_cleanlab() -> ModuleType:
    """Import cleanlab, which is an optional dependency, and the modules of it that are used here.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import cleanlab
        import cleanlab.filter
        import cleanlab.multilabel_classification.filter
    except ImportError as error:
        raise UserError("the audit needs the package cleanlab: pip install 'resnet_tf[audit]'") from error
    return cleanlab


def frequent_classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the classes with enough examples to be in each fold, int64.

    Args:
        labels: int64 [N] or bool [N, C].
        classes: number of classes C.
    """
    counts = labels.sum(axis=0) if labels.ndim > 1 else np.bincount(labels, minlength=classes)
    return np.flatnonzero(counts >= FOLDS)


def find_label_errors(labels: np.ndarray, probabilities: np.ndarray) -> list[LabelError]:
    """Return the examples whose label is likely wrong, the likeliest first.

    Args:
        labels: int64 [N], or bool [N, C] of multi-label data.
        probabilities: of the classes, of a model that was trained without the example, float32 [N, C].
    """
    return _find_in_sets(labels, probabilities) if labels.ndim > 1 else _find(labels, probabilities)


def error_probability(likelihood: np.ndarray, classes: int) -> np.ndarray:
    """Return the probability that a label is wrong.

    >>> error_probability(np.array([0.5, 0.01, 0.001]), 10).round(2).tolist()
    [0.0, 0.25, 0.77]

    Args:
        likelihood: probability of the given label by a classifier that has not seen it.
        classes: number of classes, one of which the example has.
    """
    wrong = _PRIOR / (classes - 1) * (1 - likelihood)
    return wrong / (wrong + (1 - _PRIOR) * likelihood)


def _find(labels: np.ndarray, probabilities: np.ndarray) -> list[LabelError]:
    # Processes are not forked: TensorFlow runs threads in this one.
    flags = import_cleanlab().filter.find_label_issues(labels, probabilities, n_jobs=1)
    scores = error_probability(probabilities[np.arange(len(labels)), labels].astype(float), probabilities.shape[1])
    best = probabilities.argmax(axis=1)
    return [
        LabelError(index, float(scores[index]), (int(labels[index]),), (int(best[index]),))
        for index in _order(flags, scores)
    ]


def _find_in_sets(labels: np.ndarray, probabilities: np.ndarray) -> list[LabelError]:
    sets = [np.flatnonzero(row).tolist() for row in labels]
    flags = import_cleanlab().multilabel_classification.filter.find_label_issues(sets, probabilities, n_jobs=1)
    likelihoods = np.where(labels, probabilities, 1 - probabilities.astype(float)).min(axis=1)
    scores = error_probability(likelihoods, 2)  # whether it has the class or not
    return [
        LabelError(
            index, float(scores[index]), tuple(sets[index]), tuple(np.flatnonzero(probabilities[index] > 0.5).tolist())
        )
        for index in _order(flags, scores)
    ]


def _order(flags: np.ndarray, scores: np.ndarray) -> list[int]:
    """Return the indices of the reported examples, the likeliest errors first."""
    found = np.flatnonzero(flags & (scores >= _CERTAINTY))
    return found[np.argsort(-scores[found], kind="stable")].tolist()
