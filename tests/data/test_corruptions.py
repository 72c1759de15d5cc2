"""Corruptions against the published code and independent packages, whose results golden/make_corruptions.py stores."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from resnet_tf.core.errors import UserError
from resnet_tf.core.robustness import CORRUPTION_NAMES, NOT_COMPARABLE, SEVERITIES
from resnet_tf.data import corruptions
from resnet_tf.data.corruptions import CORRUPTIONS, axes, blur, corrupt, parameters_for
from resnet_tf.data.corruptions.parameters import CIFAR_10_C, IMAGENET_C, TINY_IMAGENET_C

GOLDEN = Path(__file__).parents[1] / "golden"
# Parameters, image size, and step between stored pixels.
SETS = {"cifar": (CIFAR_10_C, 32, 2), "imagenet": (IMAGENET_C, 224, 16)}
# Largest mean difference in levels, where it is more than that of rounding: glass blur truncates after the first blur,
# imagecorruptions does not round the result of motion blur, and tensorflow-datasets rounds where the paper truncates.
TOLERANCES = {
    ("cifar", "glass_blur"): 0.6,
    ("imagenet", "motion_blur"): 0.6,
    ("imagenet", "elastic_transform"): 0.6,
}


class Legacy:
    """Random numbers of the published code, which calls `np.random`."""

    def __init__(self, seed: int):
        self._random = np.random.RandomState(seed)

    def __getattr__(self, name: str):
        return getattr(self._random, {"integers": "randint"}.get(name, name))


@pytest.fixture(scope="module")
def photo():
    sys.path.insert(0, str(GOLDEN))
    try:
        import formula
    finally:
        sys.path.remove(str(GOLDEN))
    return formula.photo


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "corruptions.npz") as stored:
        return dict(stored)


def _generator(corruption: str, seed: int):
    return np.random.Generator(np.random.MT19937(seed)) if corruption == "impulse_noise" else Legacy(seed)


def test_every_corruption_has_parameters_for_every_size():
    assert tuple(CORRUPTIONS) == CORRUPTION_NAMES
    for published in (CIFAR_10_C, TINY_IMAGENET_C, IMAGENET_C):
        assert tuple(published.corruptions) == CORRUPTION_NAMES
        assert {len(values) for values in published.corruptions.values()} == {len(SEVERITIES)}
    for size, expected in ((8, CIFAR_10_C), (32, CIFAR_10_C), (33, TINY_IMAGENET_C), (64, TINY_IMAGENET_C)):
        assert parameters_for(size, 300) is expected
    assert parameters_for(65, 300) is IMAGENET_C


def test_glass_blur_moves_the_pixels_of_any_shape():
    """One by one, as in the published code."""
    height, width, distance = 7, 12, 2
    found = blur._glass_sources(height, width, distance, np.random.default_rng(0))
    image = np.arange(height * width).reshape(height, width)
    visited = [(y, x) for y in range(height - distance, distance, -1) for x in range(width - distance, distance, -1)]
    moves = np.random.default_rng(0).integers(-distance, distance, (len(visited), 2))
    for (y, x), (dx, dy) in zip(visited, moves, strict=True):
        image[y, x] = image[y + dy, x + dx]
    np.testing.assert_array_equal(found, image.ravel())


@pytest.mark.parametrize("corruption", sorted(set(CORRUPTIONS) - set(NOT_COMPARABLE)))
@pytest.mark.parametrize("name", ["cifar", pytest.param("imagenet", marks=pytest.mark.slow)])
def test_pixels_equal_those_of_the_published_code(photo, golden, name, corruption):
    published, size, step = SETS[name]
    images = photo(size)[np.newaxis] / np.float32(255)
    for severity in SEVERITIES:
        parameters = published.corruptions[corruption][severity - 1]
        floats = CORRUPTIONS[corruption](images, parameters, [_generator(corruption, severity)])
        expected = golden[f"{name}/{corruption}/{severity}"].astype(int)
        difference = np.abs(corruptions.quantize(floats)[0, ::step, ::step] - expected)
        assert difference.mean() < TOLERANCES.get((name, corruption), 0.1)
        assert np.mean(difference > 1) < 0.03


@pytest.mark.parametrize("size", [8, 32, 64])
def test_results_depend_on_seed_and_index_and_not_on_the_batch(photo, size):
    images = np.stack([photo(size), photo(size)[::-1], photo(size)[:, ::-1]])
    for corruption in CORRUPTIONS:
        found = corrupt(images, corruption, 3, indices=range(3))
        assert found.shape == images.shape
        assert found.dtype == np.uint8
        assert (found != images).any()
        assert (corrupt(images[1:2], corruption, 3, indices=[1]) == found[1:2]).all()
    noise = [
        corrupt(images[:1], name, severity, indices=[index], seed=seed)
        for name, severity, index, seed in (
            ("gaussian_noise", 3, 0, 0),
            ("gaussian_noise", 3, 1, 0),
            ("gaussian_noise", 3, 0, 1),
            ("shot_noise", 3, 0, 0),
        )
    ]
    assert len({each.tobytes() for each in noise}) == len(noise)


@pytest.mark.parametrize("height", [20, 47])
def test_images_need_not_be_square(photo, height):
    images = photo(80)[np.newaxis, :height]
    for corruption in CORRUPTIONS:
        assert corrupt(images, corruption, 5, indices=[0]).shape == images.shape


@pytest.mark.parametrize("corruption", sorted(set(CORRUPTIONS) - {"frost", "elastic_transform"}))
def test_images_differ_more_with_every_severity(photo, corruption):
    images = np.repeat(photo(32)[np.newaxis], 8, axis=0)
    means = [
        np.abs(corrupt(images, corruption, severity, indices=range(8)).astype(int) - images).mean()
        for severity in SEVERITIES
    ]
    assert means[-1] > means[0] > 0


def test_frost_has_the_brightness_of_the_photographs():
    """Those of CIFAR-10-C: crops of 32 pixels have mean 0.634, deviation 0.151 between crops, and 0.087 within."""
    weight, frost_weight, exponent = CIFAR_10_C.corruptions["frost"][4]
    black = np.zeros((200, 32, 32, 3), np.float32)
    generators = [np.random.default_rng(seed) for seed in range(200)]
    textures = CORRUPTIONS["frost"](black, (weight, frost_weight, exponent), generators) / frost_weight
    brightness = textures.mean(axis=-1)
    assert abs(brightness.mean() - 0.634) < 0.03
    assert abs(brightness.mean(axis=(1, 2)).std() - 0.151) < 0.03
    assert abs(brightness.std(axis=(1, 2)).mean() - 0.087) < 0.02


@pytest.mark.parametrize("border", ["nearest", "reflect", "mirror"])
def test_convolutions_are_those_of_scipy(border):
    signal, kernel = np.random.default_rng(0).normal(size=9), (0.1, 0.2, 0.3, 0.15, 0.1, 0.1, 0.05)
    expected = ndimage.correlate1d(signal, kernel, mode=border)
    np.testing.assert_allclose(axes.convolution(9, kernel, border) @ signal, expected, atol=1e-6)


def test_a_mistake_is_named():
    images = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(UserError, match="unknown corruption 'fogg'; did you mean 'fog'"):
        corrupt(images, "fogg", 1, indices=[0])
    with pytest.raises(UserError, match="severity=6; expected 1 to 5"):
        corrupt(images, "fog", 6, indices=[0])
