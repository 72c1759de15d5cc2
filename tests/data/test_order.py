"""Order of training examples: permutations, repeats and class balance, as functions of the position only."""

import numpy as np
import pytest
import tensorflow as tf

from resnet_tf.config import load_config
from resnet_tf.data import order

LABELS = np.repeat(np.arange(4), [700, 200, 90, 10])[np.random.default_rng(0).permutation(1000)]


def _epochs(*overrides: str, labels=LABELS, epochs=3) -> np.ndarray:
    """Return the indices of the examples of consecutive epochs, [epochs, positions]."""
    positions = len(labels) // 50 * 50
    examples_at = tf.function(
        order.examples_at(load_config("digits", overrides), labels, positions_per_epoch=positions)
    )
    starts = range(0, epochs * positions, 50)
    indices = np.concatenate([examples_at(start + tf.range(50, dtype=tf.int64)) for start in starts])
    return indices.reshape(epochs, positions)


def test_every_epoch_is_another_permutation():
    epochs = _epochs()
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(1000), (3, 1)))
    assert (epochs[0] != epochs[1]).mean() > 0.9
    assert (epochs[0] != np.arange(1000)).mean() > 0.9
    assert (_epochs("runtime.seed=1")[0] != epochs[0]).mean() > 0.9


def test_repeats_are_adjacent_and_an_epoch_has_fewer_examples():
    epochs = _epochs("augment.repeats=5")
    runs = epochs.reshape(3, -1, 5)
    assert (runs == runs[..., :1]).all()
    assert [len(np.unique(epoch)) for epoch in epochs] == [200] * 3


@pytest.mark.parametrize(("balance", "power"), [("sqrt", 0.5), ("uniform", 0.0)])
def test_classes_and_their_examples_have_their_proportions(balance, power):
    """Kang et al. 2020, sec. 4.1: p_j = n_j^q / sum of n_i^q."""
    counts = np.bincount(LABELS)
    expected = 1000 * counts**power / np.sum(counts**power)
    epochs = _epochs(f"data.balance={balance}", epochs=20)
    for epoch in epochs:
        assert np.abs(np.bincount(LABELS[epoch]) - expected).max() <= 2
        times = np.bincount(epoch, minlength=1000)
        for label in range(4):
            mean = expected[label] / counts[label]
            assert set(times[label == LABELS]) <= {int(mean) - 1, int(mean), int(mean) + 1, int(mean) + 2}
            assert np.ptp(times[label == LABELS]) <= 2
    seen = np.bincount(epochs.ravel(), minlength=1000)
    assert (seen[LABELS == 0] == 0).mean() < 0.01, "every example of a large class occurs in some epoch"
    assert (epochs[0] != epochs[1]).mean() > 0.9


def test_classes_without_examples_are_supported():
    labels = np.array([0, 0, 3, 3, 3] * 20)
    epoch = _epochs("data.balance=uniform", labels=labels, epochs=1)[0]
    assert np.bincount(labels[epoch]).tolist() == [50, 0, 0, 50]
