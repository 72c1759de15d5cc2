"""Augmentation transforms compared with NumPy, SciPy and PIL on fixed random numbers."""

import colorsys
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance
from scipy import ndimage

from resnet_tf.config import AugmentConfig
from resnet_tf.data.augmentation import transforms
from resnet_tf.inputs import ImagePreprocess

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 9, 8, 3), np.uint8)
PIXELS = (IMAGES / 255).astype(np.float32)
NUMBERS = np.random.default_rng(1).random((6, len(transforms._COLUMNS)), np.float32)
UNIFORM = dict(zip(transforms._COLUMNS, NUMBERS.T, strict=True))
PREPROCESS = ImagePreprocess(size=(9, 8))


def _augmented(images=IMAGES, **amounts) -> np.ndarray:
    return transforms.augment_batch(
        tf.constant(images), tf.constant(NUMBERS), AugmentConfig(**amounts), PREPROCESS
    ).numpy()


def test_flip():
    flipped = _augmented(flip=True)
    assert 0 < np.sum(UNIFORM["flip"] < 0.5) < 6, "the numbers cover both cases"
    for image, result, number in zip(IMAGES, flipped, UNIFORM["flip"], strict=True):
        np.testing.assert_array_equal(result, image[:, ::-1] if number < 0.5 else image)


def test_pad_and_crop():
    results = _augmented(pad_crop=2)
    for image, result, row, column in zip(IMAGES, results, UNIFORM["pad_row"], UNIFORM["pad_column"], strict=True):
        top, left = int(row * 5), int(column * 5)
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        np.testing.assert_array_equal(result, padded[top : top + 9, left : left + 8])


def test_pad_and_crop_reaches_every_offset():
    image = tf.constant(IMAGES[:1])
    results = {
        transforms.pad_and_crop(image, {"pad_row": tf.constant([row]), "pad_column": tf.constant([0.5])}, 2)
        .numpy()
        .tobytes()
        for row in np.linspace(0, 0.999, 20, dtype="float32")
    }
    assert len(results) == 5


def test_affine_equals_scipy():
    results = _augmented(shift=2.0, scale=0.3, rotation=40.0)
    center = np.array([4.0, 3.5])
    for index, (image, result) in enumerate(zip(PIXELS, results, strict=True)):
        signed = {name: 2 * float(values[index]) - 1 for name, values in UNIFORM.items()}
        angle, zoom = math.radians(40.0) * signed["angle"], math.exp(0.3 * signed["zoom"])
        # From output to input (row, column), about the center: inverse of shift, rotation and zoom.
        inverse = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / zoom
        shift = 2.0 * np.array([signed["shift_row"], signed["shift_column"]])
        for channel in range(3):
            expected = ndimage.affine_transform(
                image[..., channel], inverse, center - inverse @ center - shift, order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(result[..., channel], expected * 255, atol=0.5 + 1e-2)


def test_default_settings_change_nothing():
    np.testing.assert_array_equal(_augmented(), IMAGES)


def test_random_numbers_do_not_depend_on_the_batch():
    def numbers(seed, first, count):
        return transforms.random_numbers(seed, tf.constant(first, tf.int64), count).numpy()

    for first in (5, 1_000_000_000_000):
        batch = numbers(3, first, 4)
        np.testing.assert_array_equal(numbers(3, first + 2, 1)[0], batch[2])
        assert len(np.unique(batch)) == batch.size
        assert not np.array_equal(numbers(4, first, 4), batch)
    many = numbers(0, 0, 5000)
    np.testing.assert_allclose(many.mean(0), 0.5, atol=0.02)
    np.testing.assert_allclose(many.var(0), 1 / 12, atol=0.006)
    assert np.abs(np.corrcoef(many.T) - np.eye(many.shape[1])).max() < 0.08


@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_color_jitter_equals_pil(name, enhance):
    """Within one level, because PIL truncates results and rounds gray."""
    for image, result, number in zip(IMAGES, _augmented(**{name: 0.8}), UNIFORM[name], strict=True):
        expected = np.asarray(enhance(Image.fromarray(image)).enhance(1 + 0.8 * (2 * float(number) - 1)))
        assert np.abs(result - expected.astype(int)).max() <= 1


def test_hue_rotates_the_color_circle():
    for image, result, number in zip(PIXELS, _augmented(hue=0.5), UNIFORM["hue"], strict=True):
        for before, after in zip(image.reshape(-1, 3), result.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*before.tolist())
            turned = colorsys.hsv_to_rgb((hue + 0.5 * (2 * float(number) - 1)) % 1, saturation, value)
            np.testing.assert_allclose(after / 255, turned, atol=0.51 / 255 + 1e-4)


def test_saturation_and_hue_do_not_change_gray_images():
    np.testing.assert_array_equal(_augmented(IMAGES[..., :1], saturation=0.5, hue=0.3), IMAGES[..., :1])


def test_erasing_and_cutout_fill_rectangles_with_the_mean():
    images = tf.fill([400, 32, 24, 3], tf.constant(9, tf.uint8))
    color = np.round(np.array(PREPROCESS.mean) * 255)
    numbers = transforms.random_numbers(0, tf.constant(0, tf.int64), 400)
    erased = np.all(
        transforms.augment_batch(images, numbers, AugmentConfig(erasing=0.5), PREPROCESS).numpy() == color, -1
    )
    assert 0.4 < np.mean(erased.any(axis=(1, 2))) < 0.6
    areas, ratios = [], []
    for mask in erased[erased.any(axis=(1, 2))]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns), "a rectangle"
        assert (np.diff(rows) == 1).all()
        assert (np.diff(columns) == 1).all()
        areas.append(mask.mean())
        ratios.append(len(rows) / len(columns))
    assert 0.01 < min(areas) < 0.05
    assert 0.28 < max(areas) < 0.36
    assert min(ratios) < 0.45
    assert max(ratios) > 2.2
    used = dict(zip(transforms._COLUMNS, numbers.numpy().T, strict=True))
    for index in np.flatnonzero(erased.any(axis=(1, 2))):  # any position at which the rectangle is inside
        for name, axis in (("erase_row", 1), ("erase_column", 0)):
            inside = erased[index].any(axis)
            start = int(used[name][index] * np.float32(len(inside) - inside.sum() + 1))
            assert np.flatnonzero(inside)[0] == start
    cut = np.all(transforms.augment_batch(images, numbers, AugmentConfig(cutout=8), PREPROCESS).numpy() == color, -1)
    assert cut.sum(axis=(1, 2)).max() == 64
    assert cut.sum(axis=(1, 2)).min() >= 16, "a quarter at a corner"
    assert 0.9 < cut.mean(axis=0)[8:24, 8:16].mean() / (64 / (32 * 24)) < 1.1


def test_random_resized_crop_is_within_its_ranges():
    """The color of a pixel encodes its position, so that corners of a crop show its area."""
    rows, columns = np.mgrid[:60, :80]
    image = tf.io.encode_png(np.stack([rows * 4, columns * 3, 0 * rows], -1).astype(np.uint8))
    preprocess = ImagePreprocess(size=(32, 32))
    crop_once_traced = tf.function(
        lambda sampled: transforms.random_resized_crop(image, sampled, preprocess, antialias=False)
    )
    areas, ratios = [], []
    for sampled in transforms.sample_crops(1, tf.constant(0, tf.int64), 150, min_area=0.08):
        crop = crop_once_traced(sampled).numpy().astype(float)
        height = (crop[-1, 0, 0] - crop[0, 0, 0]) / 4 * 32 / 31
        width = (crop[0, -1, 1] - crop[0, 0, 1]) / 3 * 32 / 31
        areas.append(height * width / (60 * 80))
        ratios.append(width / height)
    assert 0.06 < min(areas) < 0.2
    assert 0.8 < max(areas) < 1.05
    assert min(ratios) > 0.7
    assert max(ratios) < 1.5


def _torchvision_crop(height: int, width: int, numbers: np.ndarray, min_area: float) -> list[int]:
    """Return (top, left, height, width) as documented for torchvision's RandomResizedCrop.get_params."""
    for area, ratio in zip(numbers[:10], numbers[10:20], strict=True):
        area = height * width * (min_area + (1 - min_area) * area)
        ratio = np.exp(np.log(3 / 4) + (np.log(4 / 3) - np.log(3 / 4)) * ratio)
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return [int(numbers[20] * (height - h + 1)), int(numbers[21] * (width - w + 1)), h, w]
    w, h = width, height
    if width / height < 3 / 4:
        h = round(width / (3 / 4))
    elif width / height > 4 / 3:
        w = round(height * (4 / 3))
    return [(height - h) // 2, (width - w) // 2, h, w]


def test_crops_are_sampled_as_in_torchvision():
    generator = np.random.default_rng(0)
    fit = tf.function(transforms._fit_crop)
    crops = transforms.sample_crops(1, tf.constant(0, tf.int64), 600, min_area=0.3)
    uniform = transforms.random_numbers(1, tf.constant(0, tf.int64), 600, uses=22, stream=1).numpy()
    different, fallbacks = 0, 0
    for crop, numbers in zip(crops, uniform, strict=True):
        shape = generator.integers(1, 600, 2) if generator.random() < 0.7 else np.array([generator.integers(1, 9), 500])
        offset, size = (value.numpy() for value in fit(tf.constant(shape, tf.int32), crop))
        expected = np.array(_torchvision_crop(*shape.tolist(), numbers, 0.3))
        fallbacks += shape[1] > 20 * shape[0]
        different += [*offset, *size] != expected.tolist()
        assert np.abs([*offset, *size] - expected).max() <= 1, "no more than float32 rounding"
    assert different <= 3
    assert fallbacks > 50


@pytest.mark.parametrize("operation", ["flip", "rotation"])
def test_enabling_an_operation_does_not_change_another(operation):
    """Each use has its own column of numbers."""
    image = tf.zeros([6, 9, 8, 2], tf.uint8) + tf.cast(tf.reshape(tf.range(9), [1, 9, 1, 1]), tf.uint8)  # rows differ
    alone = _augmented(image, pad_crop=2)
    both = _augmented(image, pad_crop=2, **{operation: 1e-9 if operation == "rotation" else True})
    if operation == "flip":
        both = np.where(UNIFORM["flip"][:, None, None, None] < 0.5, both[:, :, ::-1], both)
    np.testing.assert_array_equal(both, alone)


def test_alternating_flips_mirror_each_image_in_every_other_epoch():
    alternate = transforms.alternate_flips(0, 1000)
    indices = tf.constant(np.random.default_rng(2).permutation(1000))
    numbers = tf.random.stateless_uniform([1000, len(transforms._COLUMNS)], seed=[0, 0])
    epochs = [alternate(numbers, indices, tf.fill([1000], tf.constant(epoch, tf.int64))).numpy() for epoch in range(4)]
    flipped = [changed[:, transforms._COLUMNS.index("flip")] < 0.5 for changed in epochs]
    np.testing.assert_array_equal(flipped[0], ~flipped[1])
    np.testing.assert_array_equal(flipped[:2], flipped[2:])
    assert 450 < flipped[0].sum() < 550
    for changed in epochs:
        np.testing.assert_array_equal(changed[:, 1:], numbers[:, 1:])
