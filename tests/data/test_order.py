"""Which example comes when: permutations, repeats and balance, each a function of the place alone."""

import numpy as np
import pytest
import tensorflow as tf

from resnet_tf.config import load_config
from resnet_tf.data import order

LABELS = np.repeat(np.arange(4), [700, 200, 90, 10])[np.random.default_rng(0).permutation(1000)]


def _epochs(*overrides: str, labels=LABELS, epochs=3) -> np.ndarray:
    """The examples of some epochs, [epochs, places]."""
    places = len(labels) // 50 * 50
    examples_at = tf.function(order.examples_at(load_config("digits", overrides), labels, places_per_epoch=places))
    starts = range(0, epochs * places, 50)
    drawn = np.concatenate([examples_at(start + tf.range(50, dtype=tf.int64)) for start in starts])
    return drawn.reshape(epochs, places)


def test_every_epoch_is_another_permutation():
    epochs = _epochs()
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(1000), (3, 1)))
    assert (epochs[0] != epochs[1]).mean() > 0.9
    assert (epochs[0] != np.arange(1000)).mean() > 0.9
    assert (_epochs("runtime.seed=1")[0] != epochs[0]).mean() > 0.9


def test_repeats_stand_side_by_side_and_an_epoch_shows_fewer():
    epochs = _epochs("augment.repeats=5")
    runs = epochs.reshape(3, -1, 5)
    assert (runs == runs[..., :1]).all()
    assert [len(np.unique(epoch)) for epoch in epochs] == [200] * 3


@pytest.mark.parametrize(("balance", "power"), [("sqrt", 0.5), ("uniform", 0.0)])
def test_classes_and_their_examples_have_their_shares(balance, power):
    """Kang et al. 2020, sec. 4.1: p_j = n_j^q / sum of n_i^q."""
    counts = np.bincount(LABELS)
    expected = 1000 * counts**power / np.sum(counts**power)
    epochs = _epochs(f"data.balance={balance}", epochs=20)
    for epoch in epochs:
        assert np.abs(np.bincount(LABELS[epoch]) - expected).max() <= 2
        times = np.bincount(epoch, minlength=1000)
        for label in range(4):
            share = expected[label] / counts[label]
            assert set(times[label == LABELS]) <= {int(share) - 1, int(share), int(share) + 1, int(share) + 2}
            assert np.ptp(times[label == LABELS]) <= 2
    seen = np.bincount(epochs.ravel(), minlength=1000)
    assert (seen[LABELS == 0] == 0).mean() < 0.01, "no example of a large class is left out for ever"
    assert (epochs[0] != epochs[1]).mean() > 0.9


def test_a_class_without_examples_is_no_trouble():
    labels = np.array([0, 0, 3, 3, 3] * 20)
    epoch = _epochs("data.balance=uniform", labels=labels, epochs=1)[0]
    assert np.bincount(labels[epoch]).tolist() == [50, 0, 0, 50]
