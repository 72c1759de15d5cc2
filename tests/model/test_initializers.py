"""Initial kernels against the variance of the paper."""

import keras
import numpy as np
import pytest

from resnet_tf.model.initializers import FanOutNormal


@pytest.mark.parametrize("shape", [(7, 7, 3, 64), (1, 1, 1024, 512), (3, 3, 4, 128)])
def test_variance_is_two_over_fan_out(shape):
    """(3, 3, 4, 128) is a convolution of 32 groups: its fan-out counts all 128 outputs, as PyTorch does."""
    values = np.asarray(FanOutNormal(seed=1)(shape))
    expected = np.sqrt(2 / (shape[0] * shape[1] * shape[3]))
    assert values.std() == pytest.approx(expected, rel=4 / np.sqrt(values.size))
    assert values.mean() == pytest.approx(0, abs=4 * expected / np.sqrt(values.size))
    kurtosis = np.mean((values / expected) ** 4)
    assert kurtosis == pytest.approx(3, abs=0.3), "normal, neither uniform (1.8) nor truncated (2.5)"


def test_numbers_follow_from_the_seed_and_no_stretch_repeats(monkeypatch):
    shape = (1, 1, 1024, 1024)  # several streams, the last one whole
    values = np.asarray(FanOutNormal(seed=5)(shape)).reshape(-1)
    chunks = values.reshape(-1, FanOutNormal.CHUNK)
    assert len({chunk[:8].tobytes() for chunk in chunks}) == len(chunks) == 4
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    np.testing.assert_array_equal(np.asarray(FanOutNormal(seed=5)(shape)).reshape(-1), values)
    assert not np.array_equal(np.asarray(FanOutNormal(seed=6)(shape)).reshape(-1), values)


def test_keras_seeds_and_stores_it():
    samples = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(seed)
        samples.append(np.asarray(FanOutNormal()((3, 3, 8, 8))))
    np.testing.assert_array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])
    again = keras.initializers.deserialize(keras.initializers.serialize(FanOutNormal(seed=7)))
    np.testing.assert_array_equal(again((3, 3, 8, 8)), FanOutNormal(seed=7)((3, 3, 8, 8)))
    assert np.asarray(FanOutNormal(seed=7)((3, 3, 8, 8), "bfloat16")).dtype.name == "bfloat16"
