"""Statistics of two multi-label classifiers on the same examples: changes of average precision and F1."""

import functools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from resnet_tf.core.paired import LEVEL

_RESAMPLES, _SEED = 1000, 0
_CHUNK = 50  # resamples at a time


@dataclass(frozen=True)
class Change:
    """A metric of two classifiers.

    Attributes:
        old: of the old classifier.
        new: of the new classifier.
        interval: 95 % confidence interval of the difference, by the percentiles of 1,000 bootstrap resamples of the
            examples; the same resamples for both classifiers and in every call.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, sec. 13.3.
    """

    old: float
    new: float
    interval: tuple[float, float]

    @property
    def difference(self) -> float:
        """Return the new value minus the old one."""
        return self.new - self.old

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON."""
        return {**asdict(self), "difference": self.difference, "interval": list(self.interval)}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.old:.4f} to {self.new:.4f}: {self.difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}"


@dataclass(frozen=True, eq=False)
class MultiLabelPaired:
    """Two multi-label classifiers on the same examples.

    Attributes:
        targets: classes of each example, bool [N, C].
        scores: values by the old and the new classifier that rank the examples of each class, float [N, C] each.
        selected: selected classes by the old and the new classifier, bool [N, C] each.
    """

    targets: np.ndarray
    scores: tuple[np.ndarray, np.ndarray]
    selected: tuple[np.ndarray, np.ndarray]

    @property
    def mean_average_precision(self) -> Change:
        """Change of the mean average precision of the classes that have examples."""
        return _mean_change(*self._average_precision)

    @property
    def f1_macro(self) -> Change:
        """Change of the mean F1 score of all classes."""
        return _mean_change(*self._f1)

    @property
    def average_precision_by_class(self) -> list[Change]:
        """Change of the average precision of each class; NaN for a class without examples."""
        return _changes(*self._average_precision)

    @property
    def f1_by_class(self) -> list[Change]:
        """Change of the F1 score of each class; 0 for a class without selected or true examples."""
        return _changes(*self._f1)

    @functools.cached_property
    def _average_precision(self) -> tuple[np.ndarray, np.ndarray]:
        return self._resampled(weighted_average_precision, self.scores)

    @functools.cached_property
    def _f1(self) -> tuple[np.ndarray, np.ndarray]:
        return self._resampled(weighted_f1, self.selected)

    def _resampled(self, metric: Any, pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return a metric of both classifiers, [1 + resamples, C] each; the first row is that of all examples once."""
        chunks = [[metric(self.targets, each, weights) for each in pair] for weights in _weights(len(self.targets))]
        old, new = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        return old, new


def _weights(count: int) -> Iterator[np.ndarray]:
    """Yield the number of times that each example is in each resample, int64 [R, N] at a time; once in the first."""
    yield np.ones((1, count), np.int64)
    rng, even = np.random.default_rng(_SEED), np.full(count, 1 / count)
    for _ in range(_RESAMPLES // _CHUNK):
        yield rng.multinomial(count, even, _CHUNK)


def weighted_average_precision(targets: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of each class with weighted examples, float64 [R, C]; NaN without examples.

    Args:
        targets: classes of each example, bool [N, C].
        scores: float [N, C].
        weights: of the examples, int64 [R, N].
    """
    found = np.empty((len(weights), targets.shape[1]))
    for index, (present, column) in enumerate(zip(targets.T, scores.T, strict=True)):
        order = np.argsort(-column, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(column[order])), len(order) - 1)  # the last of equal scores
        ordered = weights[:, order]
        hits = np.cumsum(ordered * present[order], axis=1)[:, ends]
        precision = hits / np.maximum(np.cumsum(ordered, axis=1)[:, ends], 1)
        steps, total = np.diff(hits, axis=1, prepend=0), hits[:, -1]
        found[:, index] = np.where(total > 0, np.sum(steps * precision, axis=1) / np.maximum(total, 1), np.nan)
    return found


def weighted_f1(targets: np.ndarray, selected: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the F1 score of each class with weighted examples, float64 [R, C]; see `weighted_average_precision`."""
    hits, total = weights @ (targets & selected), weights @ (targets.astype(np.int64) + selected)
    return 2 * hits / np.maximum(total, 1)


def _mean_change(old: np.ndarray, new: np.ndarray) -> Change:
    (change,) = _changes(_mean(old)[:, None], _mean(new)[:, None])
    return change


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the classes without NaN, [R]; 0 if all are."""
    known = ~np.isnan(values)
    return np.where(known, values, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def _changes(old: np.ndarray, new: np.ndarray) -> list[Change]:
    changes = []
    for before, after in zip(old.T, new.T, strict=True):
        differences = (after - before)[1:]
        known = differences[~np.isnan(differences)]
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(known) else (np.nan, np.nan)
        changes.append(Change(float(before[0]), float(after[0]), (float(low), float(high))))
    return changes
