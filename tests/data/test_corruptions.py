"""Corruptions against the published code and independent packages, whose results golden/make_corruptions.py stores."""

import sys
from pathlib import Path

import numpy as np
import pytest

from resnet_tf.core.errors import UserError
from resnet_tf.data import corruptions
from resnet_tf.data.corruptions import CORRUPTIONS, NOT_COMPARABLE, SEVERITIES, axes, corrupt, parameters_for
from resnet_tf.data.corruptions.parameters import CIFAR_10_C, IMAGENET_C, TINY_IMAGENET_C

GOLDEN = Path(__file__).parents[1] / "golden"
SETS = {"cifar": (CIFAR_10_C, 32, 2), "imagenet": (IMAGENET_C, 224, 16)}
# Largest mean difference in levels. OpenCV rounds the positions of an affine map to 1/32 pixel.
TOLERANCES = {"elastic_transform": 1.0}


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


def _generator(corruption: str, seed: int):
    return np.random.Generator(np.random.MT19937(seed)) if corruption == "impulse_noise" else Legacy(seed)


@pytest.mark.parametrize("corruption", sorted(set(CORRUPTIONS) - NOT_COMPARABLE))
@pytest.mark.parametrize("name", SETS)
def test_pixels_equal_those_of_the_published_code(photo, name, corruption):
    published, size, step = SETS[name]
    images = photo(size)[np.newaxis] / np.float32(255)
    with np.load(GOLDEN / "corruptions.npz") as stored:
        for severity in SEVERITIES:
            parameters = published.corruptions[corruption][severity - 1]
            floats = CORRUPTIONS[corruption](images, parameters, [_generator(corruption, severity)])
            found, expected = (
                each.astype(int)
                for each in (corruptions.quantize(floats)[0, ::step, ::step], stored[f"{name}/{corruption}/{severity}"])
            )
            difference = np.abs(found - expected)
            print(name, corruption, severity, difference.mean(), difference.max(), np.mean(difference > 1))
            assert difference.mean() < TOLERANCES.get(corruption, 0.1)
