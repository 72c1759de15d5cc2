"""The cross-validated probe, compared with scikit-learn; label errors and outliers among planted ones."""

import sys

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestNeighbors

from resnet_tf.core.errors import UserError
from resnet_tf.data.audit import findings, label_errors, outliers, probe
from resnet_tf.data.audit.label_errors import find_label_errors, frequent_classes
from resnet_tf.data.audit.outliers import find_outliers, find_unexplained, neighbor_distances


@pytest.fixture(scope="module")
def clusters():
    """Return features [600, 12] of 3 classes, and their labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 600)
    centers = generator.normal(0, 2.0, (3, 12))
    return (centers[labels] + generator.normal(0, 1, (600, 12))).astype(np.float16), labels


def test_folds_have_all_classes_in_proportion(clusters):
    _, labels = clusters
    folds = probe.assign_folds(labels)
    counts = np.array([np.bincount(labels[folds == fold], minlength=3) for fold in range(probe.FOLDS)])
    assert np.ptp(counts, axis=0).max() <= 1
    sets = np.eye(3, dtype=bool)[labels]
    assert np.bincount(probe.assign_folds(sets)).tolist() == [120] * 5


def test_each_probe_equals_ridge_regression_on_the_other_folds(clusters, tmp_path):
    features, labels = clusters
    folds = probe.assign_folds(labels)
    sums = probe._collect(features, labels, folds, 3)
    found = probe._predict([probe._solve(sums, fold, 0.1) for fold in range(5)], features, folds)
    for fold in range(5):
        x, y = features[folds != fold].astype(float), np.eye(3)[labels[folds != fold]]
        scale = x.std(axis=0)
        ridge = Ridge(alpha=0.1 * len(x)).fit(x / scale, y)
        expected = ridge.predict(features[folds == fold].astype(float) / scale)
        np.testing.assert_allclose(found[folds == fold], expected, atol=1e-4)


def test_features_that_are_constant_or_far_from_zero_do_not_change_a_probe(clusters, tmp_path):
    features, labels = clusters[0].astype(np.float32), clusters[1]
    constant = np.broadcast_to(np.float32([0.37, 0.1, 1.7, 12.3]), (600, 4))
    wide, folds = np.concatenate([features + np.float32(1000), constant], axis=1), probe.assign_folds(labels)
    found = probe._solve(probe._collect(wide, labels, folds, 3), 0, 0.1)(wide)
    x = (wide.astype(np.float64) - wide[0])[:, :12]
    scale = x[folds != 0].std(axis=0)
    ridge = Ridge(alpha=0.1 * np.sum(folds != 0)).fit(x[folds != 0] / scale, np.eye(3)[labels[folds != 0]])
    np.testing.assert_allclose(found, ridge.predict(x / scale), atol=1e-3)
    assert (probe.cross_validate(wide, labels, 3, tmp_path).argmax(axis=1) == labels).mean() > 0.97


def test_probabilities_are_calibrated_and_accurate(clusters, tmp_path):
    features, labels = clusters
    found = probe.cross_validate(features, labels, 3, tmp_path)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (found.argmax(axis=1) == labels).mean() > 0.97
    assert log_loss(labels, found) < 0.15
    sets = np.stack([labels == 0, labels < 2, labels >= 0], axis=1)
    several = probe.cross_validate(features, sets, 3, tmp_path)
    assert ((several > 0.5) == sets).mean() > 0.95
    assert (several[:, 2] > 0.99).all()


def test_planted_label_errors_are_found(clusters, tmp_path):
    features, labels = clusters
    given, wrong = labels.copy(), np.arange(0, 600, 50)
    given[wrong] = (given[wrong] + 1) % 3
    errors = find_label_errors(given, probe.cross_validate(features, given, 3, tmp_path))
    found = {each.index for each in errors}
    assert len(found & set(wrong.tolist())) >= 9
    assert len(found) <= 12
    assert all(each.given == (given[each.index],) for each in errors)
    assert all(each.suggested == (labels[each.index],) for each in errors if each.index in set(wrong.tolist()))
    assert [each.score for each in errors] == sorted((each.score for each in errors), reverse=True)


def test_planted_errors_in_sets_of_labels_are_found(clusters, tmp_path):
    features, labels = clusters
    given, wrong = np.stack([labels == 0, labels < 2], axis=1), np.arange(0, 600, 50)
    given[wrong, 0] = ~given[wrong, 0]
    errors = find_label_errors(given, probe.cross_validate(features, given, 2, tmp_path))
    found = {each.index for each in errors}
    assert len(found & set(wrong.tolist())) >= 9
    assert len(found) <= 16


def test_the_probability_of_an_error_is_that_of_bayes():
    """Of 1,000,000 labels with 3 % errors, those of one likelihood are counted."""
    generator = np.random.default_rng(0)
    likelihoods = generator.uniform(0.005, 0.2, 10**6)  # of one class, of two
    truth = generator.random(10**6) > likelihoods  # True for the other class
    is_wrong = generator.random(10**6) < 0.03
    given_is_first = truth == is_wrong  # labeled as the unlikely class
    expected = label_errors.error_probability(likelihoods, 2)
    chosen = given_is_first & (likelihoods < 0.05)
    assert is_wrong[chosen].mean() == pytest.approx(expected[chosen].mean(), abs=0.02)
    assert label_errors.error_probability(np.array([1.0, 0.0]), 5).tolist() == [0, 1]


def test_rare_classes_are_left_out():
    assert frequent_classes(np.array([0] * 5 + [1] * 4 + [3] * 9), 4).tolist() == [0, 3]
    assert frequent_classes(np.array([[True, False]] * 4 + [[True, True]] * 2), 2).tolist() == [0]


def test_distances_equal_those_of_scikit_learn(clusters, tmp_path):
    features, _ = clusters
    x = features.astype(np.float64)
    components = PCA(12).fit_transform((x - x.mean(0)) / x.std(0))
    expected = NearestNeighbors(n_neighbors=10).fit(components).kneighbors()[0].mean(axis=1)
    np.testing.assert_allclose(neighbor_distances(features, np.arange(600), tmp_path), expected, rtol=1e-3)
    some = np.arange(0, 600, 3)
    expected = NearestNeighbors(n_neighbors=10).fit(components[some]).kneighbors()[0].mean(axis=1)
    np.testing.assert_allclose(neighbor_distances(features, some, tmp_path), expected, rtol=0.05)


def test_planted_outliers_are_found_the_farthest_first(clusters, tmp_path):
    features = clusters[0].astype(np.float32)
    features[40], features[300] = 14.0, -25.0
    found, scores = find_outliers(features, np.arange(1, 600), tmp_path)
    assert found.tolist() == [300, 40]
    assert 0.5 < scores[1] < scores[0] < 1
    assert not len(find_outliers(features, np.arange(5), tmp_path)[0])


@pytest.fixture(scope="module")
def smooth():
    """Return images [400, 8, 8, 3] of few patterns: mixtures of three gradients, with slight noise."""
    generator = np.random.default_rng(1)
    y, x = np.indices((8, 8)) / 7
    patterns = np.stack([y, x, 1 - x * y])[..., np.newaxis].repeat(3, axis=-1)
    mixed = np.tensordot(generator.uniform(20, 80, (400, 3)), patterns, 1)
    return np.clip(mixed + generator.normal(0, 2, mixed.shape), 0, 255).astype(np.uint8)


def test_noise_and_test_patterns_are_outliers_by_their_pixels(smooth):
    images = smooth.copy()
    images[7:9] = np.random.default_rng(2).integers(0, 256, (2, 8, 8, 3), np.uint8)
    images[250] = (np.indices((8, 8)).sum(axis=0) % 2 * 255)[..., np.newaxis]
    found, scores = find_unexplained(images, np.arange(8, 400))
    assert sorted(found.tolist()) == [8, 250]
    assert 0.5 < scores[1] <= scores[0] < 1
    assert not len(find_unexplained(images, np.arange(3))[0])
    assert not len(find_unexplained(np.zeros((50, 4, 4, 3), np.uint8), np.arange(50))[0])


def test_unexplained_pixels_equal_those_of_scikit_learn(smooth, monkeypatch):
    monkeypatch.setattr(outliers, "_PATTERNS", 3)  # those of the images; the order of others is that of noise
    rows, fitted = np.arange(0, 400, 2), np.arange(1, 400, 2)
    x = smooth.reshape(400, -1) / 255
    components = PCA(3, svd_solver="full").fit(x[fitted])
    left = x[rows] - components.inverse_transform(components.transform(x[rows]))
    expected = np.sqrt((left**2).mean(axis=1))
    np.testing.assert_allclose(outliers._residuals(smooth, rows, fitted), expected, rtol=1e-3)


def test_an_outlier_in_two_ways_is_listed_once():
    far = np.array([3, 5]), np.array([0.5, 0.6])
    unexplained = np.array([5, 9]), np.array([0.75, 0.2])
    listed = {each.indices[0]: each for each in findings.list_outliers(far, unexplained)}
    assert {index: each.score for index, each in listed.items()} == {3: 0.5, 5: 0.75, 9: 0.2}
    assert listed[5].reason == "4.0 times the usual difference from the patterns of the other images"


def test_more_examples_than_the_reference_have_similar_distances(clusters, tmp_path, monkeypatch):
    features, _ = clusters
    complete = neighbor_distances(features, np.arange(600), tmp_path)
    monkeypatch.setattr(outliers, "_REFERENCE", 300)
    part = neighbor_distances(features, np.arange(600), tmp_path)
    assert np.corrcoef(complete, part)[0, 1] > 0.8


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(UserError, match=r"needs the package cleanlab: pip install 'resnet_tf\[audit\]'"):
        label_errors.import_cleanlab()
