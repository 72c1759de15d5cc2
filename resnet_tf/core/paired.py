"""Statistics of two classifiers on the same examples: interval of the difference, and McNemar's test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95  # of intervals
_RESAMPLES, _SEED = 10_000, 0


@dataclass(frozen=True, eq=False)
class Paired:
    """Accuracies of two classifiers on the same examples.

    >>> paired = Paired(old=np.array([True, True, True, False]), new=np.array([True, False, False, True]))
    >>> paired.negative, paired.positive, paired.difference, paired.p_value
    (2, 1, -0.25, 1.0)

    Attributes:
        old: whether the old classifier is right, bool [N].
        new: whether the new classifier is right, bool [N].
    """

    old: np.ndarray
    new: np.ndarray

    @property
    def examples(self) -> int:
        """Number of examples."""
        return len(self.old)

    @property
    def accuracies(self) -> tuple[float, float]:
        """Return the accuracy of the old and of the new classifier; NaN without examples."""
        if not self.examples:
            return np.nan, np.nan
        return float(self.old.mean()), float(self.new.mean())

    @property
    def difference(self) -> float:
        """Return the accuracy of the new classifier minus that of the old one; NaN without examples."""
        return (self.positive - self.negative) / self.examples if self.examples else np.nan

    @property
    def negative(self) -> int:
        """Number of negative flips: examples that were right and are wrong now (Yan et al. 2021)."""
        return int(np.sum(self.old & ~self.new))

    @property
    def positive(self) -> int:
        """Number of positive flips: examples that were wrong and are right now."""
        return int(np.sum(~self.old & self.new))

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % confidence interval of `difference`, by the percentiles of 10,000 bootstrap resamples.

        A resample of N examples changes the difference by its numbers of negative and positive flips only, which are
        multinomial. The resamples are the same in every call.

        Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, sec. 13.3.
        """
        if not self.examples:
            return np.nan, np.nan
        counts = np.array([self.negative, self.positive, self.examples - self.negative - self.positive])
        resampled = np.random.default_rng(_SEED).multinomial(self.examples, counts / self.examples, _RESAMPLES)
        differences = (resampled[:, 1] - resampled[:, 0]) / self.examples
        low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    @property
    def p_value(self) -> float:
        """Return the p-value of McNemar's exact test, two-sided: that flips in both directions are equally likely.

        Reference: McNemar, Note on the sampling error of the difference between correlated proportions, 1947; the
        exact form is the binomial test of the flips.
        """
        fewer, flips = min(self.negative, self.positive), self.negative + self.positive
        if 2 * fewer + 1 >= flips:  # the two tails are all of the distribution
            return 1.0
        # Probabilities of each smaller number, relative to that of `fewer`, from ratios of binomial coefficients.
        counts = np.arange(fewer, 0, -1)
        relative = np.cumprod(counts / (flips + 1 - counts))
        coefficient = math.lgamma(flips + 1) - math.lgamma(fewer + 1) - math.lgamma(flips - fewer + 1)  # its logarithm
        return min(2 * math.exp(coefficient - flips * math.log(2)) * (1 + float(relative.sum())), 1.0)


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Return p-values of several tests, adjusted so that all hold at once (Holm 1979), in the same order."""
    values, adjusted, largest = np.asarray(p_values, float), np.zeros(len(p_values)), 0.0
    for rank, index in enumerate(np.argsort(values, kind="stable")):
        largest = max(largest, min((len(values) - rank) * values[index], 1.0))
        adjusted[index] = largest
    return adjusted.tolist()
