"""Division into training and validation, and slices: properties, and a comparison with scikit-learn's splits."""

import hashlib

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

from resnet_tf.data.sources.division import divide, stratified_order


def _groups(generator, *, count: int, classes: int, mixed: bool) -> tuple[np.ndarray, list[str]]:
    """Return labels and groups of 1 to 8 examples, each of one class, or of any."""
    labels, groups = [], []
    for group in range(count):
        size = generator.integers(1, 9)
        own = generator.integers(classes, size=size) if mixed else np.full(size, generator.integers(classes))
        labels += own.tolist()
        groups += [f"patient {group}"] * size
    return np.array(labels), groups


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_groups_stay_whole_and_classes_are_in_both_splits(seed, mixed):
    generator = np.random.default_rng(seed)
    fraction = [0.05, 0.1, 0.2, 0.3][seed % 4]
    labels, groups = _groups(generator, count=60 + 40 * seed, classes=1 + seed, mixed=mixed)
    chosen = divide(labels, groups, fraction)
    names = np.array(groups)
    assert not set(names[chosen]) & set(names[~chosen])
    for label in np.unique(labels):
        own = labels == label
        if len(set(names[own])) > 1:
            assert 0 < chosen[own].sum() < own.sum()
        else:
            assert not chosen[own].any()
    order = generator.permutation(len(labels))
    again = divide(labels[order], [groups[index] for index in order], fraction)
    assert (again == chosen[order]).all(), "the order of the examples has no effect"


@pytest.mark.parametrize("mixed", [False, True])
def test_class_fractions_are_about_those_of_scikit_learn(mixed):
    """For 300 groups: the mean deviation from the fraction is at most three times that of an optimized fold."""
    ours, theirs = [], []
    for seed in range(6):
        labels, groups = _groups(np.random.default_rng(seed), count=300, classes=4, mixed=mixed)
        chosen = divide(labels, groups, 0.2)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups)
        for _, test in folds:
            theirs += [abs((labels[test] == label).sum() / (labels == label).sum() - 0.2) for label in range(4)]
        found = [chosen[labels == label].mean() for label in range(4)]
        assert all(0.1 <= each <= 0.4 for each in found)
        ours += [abs(each - 0.2) for each in found]
    assert np.mean(ours) < max(3 * np.mean(theirs), 0.06)


def test_a_group_stays_in_its_split_when_others_are_added():
    """The hash of its name decides, calculated by NumPy, unless its class has less than half of the fraction."""
    labels, groups = _groups(np.random.default_rng(0), count=400, classes=3, mixed=False)
    half = groups.index("patient 200")
    before, after = divide(labels[:half], groups[:half], 0.2), divide(labels, groups, 0.2)
    hashes = [int.from_bytes(hashlib.blake2b(each.encode(), digest_size=8).digest()) for each in groups]
    by_hash = np.array(hashes) < 0.2 * 2.0**64
    fractions = [[by_hash[:end][labels[:end] == label].mean() for end in (half, len(labels))] for label in range(3)]
    stable = np.array([all(0.1 <= each <= 0.4 for each in pair) for pair in fractions])
    assert stable.sum() == 2
    own = stable[labels]
    assert (after[own] == by_hash[own]).all()
    assert (before[own[:half]] == by_hash[:half][own[:half]]).all()


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_each_of_several_labels_is_in_both_splits(fraction):
    generator = np.random.default_rng(0)
    labels = generator.random((400, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0.01]
    chosen = divide(labels, [f"{number}.png" for number in range(400)], fraction)
    for column in labels.T:
        assert 1 <= chosen[column].sum() < column.sum()
        assert np.floor(fraction / 2 * column.sum()) <= chosen[column].sum() <= np.ceil(2 * fraction * column.sum())
    assert 0.5 * fraction < chosen.mean() < 2 * fraction


def test_large_groups_of_a_class_leave_room_for_training():
    """A class of groups of 90, 5 and 5 examples validates on a small one."""
    labels = np.zeros(100, np.int64)
    groups = ["a"] * 90 + ["b"] * 5 + ["c"] * 5
    for names in (groups, [each.upper() for each in groups], [each * 7 for each in groups]):
        assert divide(labels, names, 0.1).sum() in (5, 10)


def test_stratified_orders_have_each_class_in_proportion():
    labels = np.repeat([0, 1, 2], [10, 50, 100])
    order = stratified_order(labels, [str(number) for number in range(160)])
    assert sorted(order) == list(range(160))
    for end in (16, 32, 80):
        counts = np.bincount(labels[order[:end]], minlength=3)
        np.testing.assert_allclose(counts, np.array([10, 50, 100]) * end / 160, atol=1)


def test_slices_of_classes_of_few_examples_have_as_many_of_each_as_those_of_scikit_learn():
    labels = np.repeat(np.arange(400), 5)
    order = stratified_order(labels, [f"{number}.png" for number in range(len(labels))])
    _, theirs = next(StratifiedShuffleSplit(1, test_size=0.5, random_state=0).split(labels, labels))
    for half in (order[: len(labels) // 2], order[len(labels) // 2 :], theirs):
        assert set(np.bincount(labels[half])) == {2, 3}
    tail = labels[order[-len(labels) // 10 :]]
    assert len(set(tail)) == len(tail)
    # A mean of 200 random classes has a standard deviation of 400 / sqrt(12 * 200) = 8.
    assert abs(tail.mean() - labels.mean()) < 3 * 8


@pytest.mark.parametrize("part", [slice(1200), slice(1200, None), slice(2160, None)])
def test_slices_of_label_sets_have_as_much_of_each_class_as_random_ones(part):
    """With 40 labels, as in COCO, most sets of classes occur once."""
    generator = np.random.default_rng(0)
    labels = generator.random((2400, 40)) < generator.uniform(0.01, 0.15, 40)
    sets = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    assert np.mean(np.bincount(sets) == 1) > 0.8

    def deviation(order):
        """Return the root mean square of the deviations of the class frequencies, in standard deviations."""
        expected = labels.mean(0)
        found = labels[order[part]]
        return np.sqrt(np.mean((found.mean(0) - expected) ** 2 / expected * len(found)))

    ours = stratified_order(sets, [f"{number}.png" for number in range(len(sets))])
    assert sorted(ours) == list(range(len(sets)))
    assert deviation(ours) < max(deviation(generator.permutation(len(sets))) for _ in range(20))
    assert labels[ours[part]].sum(1).mean() == pytest.approx(labels.sum(1).mean(), rel=0.05)
