"""Calibration, compared with scikit-learn."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from resnet_tf.core.reliability import calibration_bins, calibration_error


def test_calibration_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.2, 1.0, 2000)
    correct = generator.random(2000) < confidence**2
    counts, mean_confidence, accuracy = calibration_bins(confidence, correct)
    expected_accuracy, expected_confidence = calibration_curve(correct, confidence, n_bins=15)
    filled = counts > 0
    assert accuracy[filled] == pytest.approx(expected_accuracy)
    assert mean_confidence[filled] == pytest.approx(expected_confidence)
    weights = counts[filled] / counts.sum()
    expected = np.sum(weights * np.abs(expected_accuracy - expected_confidence))
    assert calibration_error(confidence, correct) == pytest.approx(expected)
    assert calibration_bins(np.array([0.0, 1.0]), np.array([True, False]))[0].tolist() == [1, *[0] * 13, 1]
