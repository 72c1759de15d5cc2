"""Augmentation against NumPy and SciPy, on fixed numbers."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from resnet_tf.config import AugmentConfig
from resnet_tf.data import augment
from resnet_tf.spec import Preprocess

IMAGES = np.random.default_rng(0).random((6, 9, 8, 2), np.float32)
NUMBERS = np.random.default_rng(1).random((6, len(augment._COLUMNS)), np.float32)
UNIFORM = dict(zip(augment._COLUMNS, NUMBERS.T, strict=True))


def test_flip():
    flipped = augment.augment_batch(tf.constant(IMAGES), tf.constant(NUMBERS), AugmentConfig(flip=True)).numpy()
    assert 0 < np.sum(UNIFORM["flip"] < 0.5) < 6, "the numbers cover both cases"
    for image, result, number in zip(IMAGES, flipped, UNIFORM["flip"], strict=True):
        np.testing.assert_array_equal(result, image[:, ::-1] if number < 0.5 else image)


def test_pad_and_crop():
    results = augment.augment_batch(tf.constant(IMAGES), tf.constant(NUMBERS), AugmentConfig(pad_crop=2)).numpy()
    for image, result, row, column in zip(IMAGES, results, UNIFORM["pad_row"], UNIFORM["pad_column"], strict=True):
        top, left = int(row * 5), int(column * 5)
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        np.testing.assert_array_equal(result, padded[top : top + 9, left : left + 8])


def test_pad_and_crop_reaches_every_place():
    image = tf.constant(IMAGES[:1])
    places = {
        augment.pad_and_crop(image, {"pad_row": tf.constant([row]), "pad_column": tf.constant([0.5])}, 2)
        .numpy()
        .tobytes()
        for row in np.linspace(0, 0.999, 20, dtype="float32")
    }
    assert len(places) == 5


def test_affine_equals_scipy():
    config = AugmentConfig(shift=2.0, scale=0.3, rotation=40.0)
    results = augment.augment_batch(tf.constant(IMAGES), tf.constant(NUMBERS), config).numpy()
    center = np.array([4.0, 3.5])
    for index, (image, result) in enumerate(zip(IMAGES, results, strict=True)):
        signed = {name: 2 * float(values[index]) - 1 for name, values in UNIFORM.items()}
        angle, zoom = math.radians(40.0) * signed["angle"], math.exp(0.3 * signed["zoom"])
        # Output (row, column) -> input, about the centre: undo the shift, the turn and the zoom.
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / zoom
        shift = 2.0 * np.array([signed["shift_row"], signed["shift_column"]])
        for channel in range(2):
            expected = ndimage.affine_transform(
                image[..., channel], turn, center - turn @ center - shift, order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(result[..., channel], expected, atol=1e-4)


def test_nothing_asked_for_changes_nothing():
    results = augment.augment_batch(tf.constant(IMAGES), tf.constant(NUMBERS), AugmentConfig())
    np.testing.assert_array_equal(results, IMAGES)


def test_numbers_belong_to_the_example_not_to_the_batch():
    places = tf.constant([5, 1_000_000_000_000, 7], tf.int64)
    numbers = augment.random_numbers(3, places).numpy()
    np.testing.assert_array_equal(augment.random_numbers(3, places[1:2])[0], numbers[1])
    assert len(np.unique(numbers)) == numbers.size
    assert not np.array_equal(augment.random_numbers(4, places), numbers)
    many = augment.random_numbers(0, tf.range(2000, dtype=tf.int64)).numpy()
    np.testing.assert_allclose(many.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(many.var(0), 1 / 12, atol=0.01)


def test_random_resized_crop_keeps_to_its_ranges():
    """The colour of each corner tells where the crop was taken from."""
    rows, columns = np.mgrid[:60, :80]
    image = tf.constant(np.stack([rows * 4, columns * 3, 0 * rows], -1).astype(np.uint8))
    spec = Preprocess(size=(32, 32))
    areas, ratios = [], []
    for example in range(150):
        crop = augment.random_resized_crop(image, spec, seed=1, example=tf.constant(example, tf.int64)).numpy() * 255
        height = (crop[-1, 0, 0] - crop[0, 0, 0]) / 4 * 32 / 31
        width = (crop[0, -1, 1] - crop[0, 0, 1]) / 3 * 32 / 31
        areas.append(height * width / (60 * 80))
        ratios.append(width / height)
    assert 0.06 < min(areas) < 0.2
    assert 0.8 < max(areas) < 1.05
    assert min(ratios) > 0.7
    assert max(ratios) < 1.5


@pytest.mark.parametrize("operation", ["flip", "rotation"])
def test_turning_an_operation_on_leaves_the_others_as_they_were(operation):
    """Each use has its own column of numbers."""
    image = tf.zeros([6, 9, 8, 2]) + tf.reshape(tf.range(9.0), [1, 9, 1, 1])  # rows differ, columns do not
    alone = augment.augment_batch(image, NUMBERS, AugmentConfig(pad_crop=2))
    both = augment.augment_batch(
        image, NUMBERS, AugmentConfig(pad_crop=2, **{operation: 1e-9 if operation == "rotation" else True})
    )
    if operation == "flip":
        both = tf.where(UNIFORM["flip"][:, None, None, None] < 0.5, tf.reverse(both, [2]), both)
    np.testing.assert_allclose(both, alone, atol=1e-4)
