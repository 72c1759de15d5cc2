"""Paired statistics, compared with SciPy and statsmodels."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from resnet_tf.core.paired import Paired, adjust_p_values


def _paired(both: int, negative: int, positive: int, neither: int) -> Paired:
    counts = (both, negative, positive, neither)
    return Paired(np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts))


@pytest.mark.parametrize(
    "counts",
    [
        *((80, 15, 3, 2), (0, 1, 0, 0), (5, 4, 4, 1), (10, 7, 8, 0), (900, 0, 12, 88)),
        *((9000, 400, 331, 269), (0, 3000, 2600, 9), (0, 40_700, 40_000, 0), (0, 90_000, 0, 0)),
    ],
)
def test_the_p_value_is_that_of_other_implementations(counts):
    paired = _paired(*counts)
    both, negative, positive, neither = counts
    expected = mcnemar([[both, negative], [positive, neither]], exact=True).pvalue
    assert paired.p_value == pytest.approx(expected, rel=1e-9)
    assert paired.p_value == pytest.approx(stats.binomtest(negative, negative + positive).pvalue, rel=1e-9)
    assert (paired.negative, paired.positive) == (negative, positive)
    total = sum(counts)
    assert paired.accuracies == pytest.approx(((both + negative) / total, (both + positive) / total))
    assert paired.difference == pytest.approx((positive - negative) / total)


@pytest.mark.parametrize("counts", [(0, 1), (1, 1), (2, 1), (7, 8), (30_000, 30_000), (30_001, 30_000)])
def test_flips_that_are_as_even_as_possible_have_a_p_value_of_exactly_1(counts):
    assert _paired(0, *counts, 0).p_value == 1.0


def test_models_that_agree_have_no_evidence_of_a_difference():
    assert _paired(9, 0, 0, 1).p_value == 1.0
    assert _paired(9, 0, 0, 1).interval == (0.0, 0.0)


@pytest.mark.parametrize("counts", [(300, 60, 20, 20), (80, 3, 9, 8), (380, 10, 0, 10)])
def test_the_interval_is_that_of_scipy(counts):
    paired = _paired(*counts)

    def difference(old, new, axis):
        return new.mean(axis=axis) - old.mean(axis=axis)

    found = stats.bootstrap(
        (paired.old, paired.new), difference, paired=True, n_resamples=9999, method="percentile", rng=1
    ).confidence_interval
    # Between the percentiles of two samples of 10,000 resamples.
    tolerance = 0.1 * (found.high - found.low) + 1 / paired.examples
    assert paired.interval == pytest.approx((found.low, found.high), abs=tolerance)
    assert paired.interval == paired.interval, "the same in every call"


def test_the_interval_covers_the_true_difference_as_often_as_it_states():
    generator, covered = np.random.default_rng(0), 0
    for _ in range(400):
        old = generator.random(300) < 0.8
        new = np.where(generator.random(300) < 0.85, old, generator.random(300) < 0.7)
        low, high = Paired(old, new).interval
        covered += low <= 0.15 * (0.7 - 0.8) <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_adjusted_p_values_are_those_of_statsmodels():
    generator = np.random.default_rng(0)
    for count in (1, 2, 30):
        values = generator.random(count) ** 3
        assert adjust_p_values(values) == pytest.approx(multipletests(values, method="holm")[1])
    assert adjust_p_values([]) == []


def test_parts_without_examples():
    empty = _paired(0, 0, 0, 0)
    assert empty.p_value == 1.0
    assert np.isnan([empty.difference, *empty.accuracies, *empty.interval]).all()
