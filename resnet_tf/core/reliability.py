"""Reliability of probabilities: confidence in bins, the expected calibration error, and the Brier score."""

import numpy as np

_BINS = 15  # confidence bins, as in most papers


def calibration_bins(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return count, mean confidence and accuracy of each of 15 bins of equal width, [15] each; 0 for an empty bin."""
    bins = np.clip((np.ceil(confidence * _BINS) - 1).astype(int), 0, _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    filled = np.maximum(counts, 1)
    return counts, np.bincount(bins, confidence, _BINS) / filled, np.bincount(bins, correct, _BINS) / filled


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Return the expected calibration error over 15 bins of equal width (Guo et al. 2017, On Calibration)."""
    counts, mean_confidence, accuracy = calibration_bins(confidence, correct)
    return float(np.sum(counts * np.abs(accuracy - mean_confidence)) / len(confidence))


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the Brier score: the mean squared error of probabilities, 0 for certain and right ones.

    Reference: Brier, Verification of Forecasts Expressed in Terms of Probability, 1950.

    Args:
        labels: classes, int64 [N], for the sum over the classes, in [0, 2]; or bool [N, C], for the mean over the
            decisions, in [0, 1].
        probabilities: float [N, C].
    """
    if labels.ndim > 1:
        return float(np.mean(np.square(probabilities - labels)))
    right = probabilities[np.arange(len(labels)), labels]
    return float(np.mean(np.sum(np.square(probabilities), axis=1) - 2 * right + 1))
