"""Preprocessing of float arrays: numbers beyond the range of float32 are refused as those that are not finite."""

import numpy as np
import pytest

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.inputs import SignalPreprocess
from resnet_tf.inputs.base import UnreadableError

PREPROCESS = SignalPreprocess(length=4, channels=1)


@pytest.mark.parametrize("number", [1e39, -1e300, np.inf, np.nan])
def test_numbers_that_are_not_finite_in_float32_are_refused(number):
    signals = np.zeros((3, 4, 1))
    signals[1, 2] = number
    with pytest.raises(UserError, match=r"x_train holds numbers that are not finite in float32; signal 1 is the first"):
        SignalPreprocess.check_archive(signals, "x_train", DataConfig(length=4, channels=1))
    with pytest.raises(UserError, match=r"signals of float64; expected floating-point numbers, finite in float32"):
        PREPROCESS.check_unnormalized(signals)
    with pytest.raises(UnreadableError, match=r"it holds numbers that are not finite in float32"):
        PREPROCESS.decode_batch([PREPROCESS.encode(signal) for signal in signals])


def test_numbers_of_float64_in_the_range_of_float32_are_converted():
    signals = np.full((2, 4, 1), np.finfo(np.float32).max, np.float64)
    for found in (
        SignalPreprocess.check_archive(signals, "x_train", DataConfig(length=4, channels=1)),
        PREPROCESS.check_unnormalized(signals),
        PREPROCESS.decode_batch([PREPROCESS.encode(signal) for signal in signals]),
    ):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, signals)
