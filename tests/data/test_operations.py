"""Operations of augmentation policies compared with PIL, over images and magnitudes of several types."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from resnet_tf.data.augmentation import operations
from resnet_tf.data.augmentation.operations import NAMES


def _images() -> np.ndarray:
    """Noise, a narrow range, a gradient with structure, and a single level: uint8 [4, 24, 32, 3]."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:24, :32]
    gradient = np.stack([rows * 9, columns * 7, (rows * columns) % 256], -1)
    narrow = generator.integers(90, 140, (24, 32, 3))
    noise = generator.integers(0, 256, (24, 32, 3))
    return np.stack([noise, narrow, gradient, np.full((24, 32, 3), 77)]).astype(np.uint8)


def _affine(image, coefficients):
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST)


PIL = {
    "Identity": lambda image, m: image,
    "ShearX": lambda image, m: _affine(image, (1, m, 0, 0, 1, 0)),
    "ShearY": lambda image, m: _affine(image, (1, 0, 0, m, 1, 0)),
    "TranslateX": lambda image, m: _affine(image, (1, 0, -int(m), 0, 1, 0)),
    "TranslateY": lambda image, m: _affine(image, (1, 0, 0, 0, 1, -int(m))),
    "Rotate": lambda image, m: image.rotate(m, Image.Resampling.NEAREST),
    "Brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(1 + m),
    "Color": lambda image, m: ImageEnhance.Color(image).enhance(1 + m),
    "Contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(1 + m),
    "Sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + m),
    "Posterize": lambda image, m: ImageOps.posterize(image, int(m)),
    "Solarize": lambda image, m: ImageOps.solarize(image, m),
    "AutoContrast": lambda image, m: ImageOps.autocontrast(image),
    "Equalize": lambda image, m: ImageOps.equalize(image),
    "Invert": lambda image, m: ImageOps.invert(image),
}
MAGNITUDES = {
    **dict.fromkeys(("ShearX", "ShearY"), (-0.99, -0.27, 0.09, 0.3)),
    **dict.fromkeys(("TranslateX", "TranslateY"), (-7.6, -1.0, 0.4, 9.9)),
    "Rotate": (-131.0, -29.0, 7.0, 30.0),
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), (-0.9, -0.27, 0.27, 0.99)),
    "Posterize": (2.0, 4.0, 7.0, 8.0),
    "Solarize": (0.0, 76.5, 128.0, 255.0),
}


def test_every_operation_is_compared():
    assert set(PIL) == set(NAMES)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", NAMES)
def test_operations_equal_pil(name, channels):
    images = _images()[..., :channels]
    mode = "RGB" if channels == 3 else "L"
    for magnitude in MAGNITUDES.get(name, (0.0,)):
        found = operations.apply(tf.constant(images), tf.fill([4], NAMES.index(name)), tf.fill([4], magnitude)).numpy()
        pil = [Image.fromarray(image.squeeze() if channels == 1 else image, mode) for image in images]
        expected = np.stack([np.asarray(PIL[name](image, magnitude)).reshape(24, 32, channels) for image in pil])
        if name in ("ShearX", "ShearY", "Rotate"):
            # PIL accumulates fixed-point coefficients of 16 fractional bits, so pixels on an edge may differ.
            differing = np.mean(np.any(found != expected, axis=-1))
            assert differing < 0.01
        elif name in ("Brightness", "Color", "Contrast", "Sharpness"):
            # Both truncate a float32, so rounding may move values near an integer by one level.
            assert np.abs(found.astype(int) - expected).max() <= 1
            assert np.mean(found != expected) < 0.005
        else:
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [(1, 8), (8, 1), (2, 5), (5, 2), (1, 1), (3, 3)], ids=str)
def test_smallest_images_are_sharpened_as_by_pil(size):
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    found = operations.OPERATIONS["Sharpness"](tf.constant(images), tf.fill([2], 0.9))
    expected = np.stack([np.asarray(PIL["Sharpness"](Image.fromarray(image), 0.9)) for image in images])
    assert found.shape == expected.shape
    assert np.abs(found.numpy().astype(int) - expected).max() <= 1


def test_every_image_has_its_own_operation():
    images = np.concatenate([_images()] * 4)[: len(NAMES)]
    magnitudes = [MAGNITUDES.get(name, (0.0,))[-1] for name in NAMES]
    together = operations.apply(tf.constant(images), tf.range(len(NAMES)), tf.constant(magnitudes))
    for index, magnitude in enumerate(magnitudes):
        alone = operations.apply(tf.constant(images[index : index + 1]), tf.constant([index]), tf.constant([magnitude]))
        np.testing.assert_array_equal(together[index], alone[0])
    np.testing.assert_array_equal(together[0], images[0])
