"""Mixup and cutmix compared with NumPy and SciPy implementations of the papers."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from resnet_tf.config import AugmentConfig
from resnet_tf.data.augmentation import mixing

IMAGES = np.random.default_rng(0).random((8, 12, 10, 3), np.float32)
LABELS = np.array([0, 1, 2, 3, 4, 5, 6, 6])
SIZE = (12, 10)


def _sample(config: AugmentConfig, count: int = 8, first: int = 0, seed: int = 0, size=SIZE) -> np.ndarray:
    return mixing.sample(seed, tf.constant(first, tf.int64), count, config, size).numpy()


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 8.0])
def test_weights_are_beta_distributed(alpha):
    uniform = np.random.default_rng(0).random(500, np.float32)
    found = mixing._beta(tf.constant(uniform), alpha).numpy()
    np.testing.assert_allclose(found, stats.beta.ppf(uniform.astype(float), alpha, alpha), atol=2e-4)
    weights = _sample(AugmentConfig(mixup=alpha), 4000)[:, 0]
    for limit in (0.01, 0.3, 0.5, 0.9, 0.99):
        assert np.mean(weights < limit) == pytest.approx(stats.beta(alpha, alpha).cdf(limit), abs=0.03)


def test_mixup_is_a_weighted_mean_of_images_and_of_labels():
    config = AugmentConfig(mixup=1.0)
    mix = _sample(config)
    partner = [1, 0, 3, 2, 5, 4, 7, 6]
    weight = mix[:, 0].reshape(-1, 1, 1, 1)
    expected = weight * IMAGES + (1 - weight) * IMAGES[partner]
    np.testing.assert_allclose(mixing.blend(tf.constant(IMAGES), tf.constant(mix), config), expected, atol=1e-6)
    one_hot = np.eye(7)[LABELS]
    weight = mix[:, :1]
    proportions = mixing.targets(tf.constant(LABELS), tf.constant(mix), config, num_classes=7, size=SIZE)
    np.testing.assert_allclose(proportions, weight * one_hot + (1 - weight) * one_hot[partner], atol=1e-6)


def test_cutmix_pastes_a_box_and_weights_labels_by_its_area():
    config = AugmentConfig(cutmix=1.0)
    mix = _sample(config, 400)
    images = np.zeros((400, *SIZE, 1), np.float32)
    images[::2] = 1.0  # partners have different colors
    labels = np.arange(400) % 2
    blended = mixing.blend(tf.constant(images), tf.constant(mix), config).numpy()
    assert set(np.unique(blended)) == {0.0, 1.0}
    foreign = np.abs(blended - images)[..., 0]
    for mask in foreign:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns), "a box"
    proportions = mixing.targets(tf.constant(labels), tf.constant(mix), config, num_classes=2, size=SIZE).numpy()
    np.testing.assert_allclose(proportions[np.arange(400), 1 - labels], foreign.mean(axis=(1, 2)), atol=1e-6)
    assert 0.0 < foreign.mean() < 0.5
    assert foreign[:, 0, 0].mean() < foreign[:, 6, 5].mean(), "boxes are clipped at the border"
    assert foreign.any(axis=(0, 2)).all(), "in every row"
    assert foreign.any(axis=(0, 1)).all(), "and in every column"


def test_cutmix_box_has_the_size_of_the_paper():
    """Yun et al. 2019, sec. 3.2: height and width are sqrt(1 - lambda) of the image's, before clipping to the image."""
    mix = _sample(AugmentConfig(cutmix=1.0), 4000, size=(1000, 1000))
    inside = (mix[:, 1] > 0) & (mix[:, 2] < 1000) & (mix[:, 3] > 0) & (mix[:, 4] < 1000)
    heights, widths = (mix[:, 2] - mix[:, 1])[inside], (mix[:, 4] - mix[:, 3])[inside]
    np.testing.assert_array_equal(heights, widths)
    # Boxes with a center near the middle are clipped only if they are longer than half of the image.
    middle = (np.abs(mix[:, 1:3].mean(axis=1) - 500) < 50) & (np.abs(mix[:, 3:5].mean(axis=1) - 500) < 50)
    lengths = (mix[:, 2] - mix[:, 1])[middle]
    small = lengths[lengths < 700]
    assert stats.kstest((small / 700) ** 2, stats.uniform.cdf).pvalue > 1e-3


def test_mixup_and_cutmix_each_apply_to_half_of_the_mixed_examples():
    mix = _sample(AugmentConfig(mixup=1.0, cutmix=1.0, mix_probability=0.8), 4000)
    by_mixup, by_cutmix = mix[:, 0] < 1, mix[:, 2] > mix[:, 1]
    assert not (by_mixup & by_cutmix).any()
    assert by_mixup.mean() == pytest.approx(0.4, abs=0.03)
    assert by_cutmix.mean() == pytest.approx(0.4, abs=0.03)
    assert not mixing.is_enabled(AugmentConfig(mixup=1.0, mix_probability=0.0))
    assert not mixing.is_enabled(AugmentConfig())


def test_random_numbers_depend_on_the_position_in_the_run_only():
    config = AugmentConfig(mixup=0.4, cutmix=1.0)
    complete = _sample(config, 64, first=640)
    np.testing.assert_array_equal(np.concatenate([_sample(config, 32, 640), _sample(config, 32, 672)]), complete)
    assert (_sample(config, 64, first=640, seed=1) != complete).any()


def test_copies_of_one_example_are_not_mixed_with_each_other():
    config = AugmentConfig(mixup=1.0, repeats=2)
    assert mixing.group_size(config) == 4
    assert mixing._partners(8, config).numpy().tolist() == [2, 3, 0, 1, 6, 7, 4, 5]
