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


@pytest.mark.parametrize("examples", [200, 1000, 50_000])
def test_orders_of_epochs_are_independent(examples):
    """Pearson's correlation of independent permutations has a standard deviation of 1 / sqrt(n - 1)."""
    epochs = _epochs(labels=np.zeros(examples, np.int64), epochs=12)
    correlations = np.corrcoef(epochs)[np.triu_indices(12, 1)]
    assert np.abs(correlations * np.sqrt(examples - 1)).max() < 5


def test_batches_hold_classes_in_their_proportions():
    """Batches of a split that is sorted by class: counts of a class follow the hypergeometric distribution."""
    is_first = np.arange(200) < 80
    batches = is_first[_epochs(labels=np.zeros(200, np.int64), epochs=200).reshape(-1, 50)]
    deviations = (batches.sum(axis=1) - 20) / np.sqrt(50 * 0.4 * 0.6 * (200 - 50) / (200 - 1))
    assert np.abs(deviations).max() < 4.5
    assert 0.9 < deviations.std() < 1.1


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


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("balance", ["none", "uniform"])
def test_the_rest_of_a_small_split_is_trained_on(repeats, balance):
    """38 images in batches of 16, three in an epoch: all images occur equally often in a run."""
    labels = np.arange(38) % 2
    config = load_config("digits", [f"augment.repeats={repeats}", f"data.balance={balance}"])
    examples_at = tf.function(order.examples_at(config, labels, positions_per_epoch=48))
    batches = [examples_at(start + tf.range(16, dtype=tf.int64)).numpy() for start in range(0, 10 * 48, 16)]
    indices = np.concatenate(batches)
    assert (indices.reshape(-1, repeats) == indices[::repeats, None]).all()
    times = np.bincount(indices, minlength=38)
    assert np.ptp(times) <= repeats * (1 if balance == "none" else 2)
    if balance == "none":
        passes = indices[: 38 * repeats * (len(indices) // (38 * repeats))].reshape(-1, 38 * repeats)
        np.testing.assert_array_equal(
            np.sort(passes, axis=1), np.tile(np.repeat(np.arange(38), repeats), (len(passes), 1))
        )
        assert (passes[0] != passes[1]).mean() > 0.5
    whole = order.examples_at(config, labels, positions_per_epoch=38 // (2 * repeats) * 2 * repeats)
    assert whole(tf.range(16, dtype=tf.int64)).shape == 16


def test_classes_without_examples_are_supported():
    labels = np.array([0, 0, 3, 3, 3] * 20)
    epoch = _epochs("data.balance=uniform", labels=labels, epochs=1)[0]
    assert np.bincount(labels[epoch]).tolist() == [50, 0, 0, 50]
