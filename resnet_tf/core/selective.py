"""Selective prediction: the confidence from which on predictions are as precise as desired."""

import numpy as np

_QUANTILE = 1.6448536269514722  # of the normal distribution: a one-sided limit at the level 0.95


def lower_precision(right: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the lower 95 % limit, one-sided, of the precision of which `right` of `count` predictions are a sample.

    References:
        Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
        Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion, 2001.
    """
    fraction, square = right / count, _QUANTILE**2
    margin = _QUANTILE * np.sqrt(fraction * (1 - fraction) / count + square / (4 * count**2))
    return (fraction + square / (2 * count) - margin) / (1 + square / count)


def choose_threshold(confidence: np.ndarray, correct: np.ndarray, target: float) -> float | None:
    """Return the smallest confidence from which on the precision reaches a target; None if none does.

    A confidence reaches the target if the lower limit of the precision (`lower_precision`) does, so that a few right
    predictions are not enough: a target of 0.95 needs at least 52 of them. The threshold lies in the middle between two
    confidences that occur, and is 0 if all predictions together reach the target.

    Reference: Geifman and El-Yaniv, Selective Classification for Deep Neural Networks, 2017.

    Args:
        confidence: probability of each prediction, float [N].
        correct: whether it is right, bool [N].
        target: fraction of predictions that are to be right, in [0, 1].
    """
    if not len(confidence):
        return None
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # the last of equal confidences
    reached = np.flatnonzero(lower_precision(np.cumsum(correct[order])[ends], ends + 1) >= target)
    if not len(reached):
        return None
    last = reached[-1]
    if last + 1 == len(ends):
        return 0.0
    return float((ordered[ends[last]] + ordered[ends[last + 1]]) / 2)
