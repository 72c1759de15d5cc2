"""Measures of image quality, compared with cleanvision and PIL."""

import numpy as np
import pytest
from cleanvision.issue_managers import image_property
from PIL import Image, ImageFilter

from resnet_tf.data.audit.measures import MEASURES, find_issues, measure


def _cleanvision(pixels):
    """Return the measures of an image by cleanvision and PIL."""
    image = Image.fromarray(pixels)
    brightness = image_property.BrightnessProperty("dark").calculate(image)
    gray = image.convert("L")
    edges = np.asarray(image_property.get_edges(gray))[1:-1, 1:-1]
    return [
        brightness["brightness_perc_5"],
        brightness["brightness_perc_99"],
        image_property.calc_entropy(image),
        edges.std() if edges.size else 0,
    ]


@pytest.mark.parametrize("shape", [(8, 8), (17, 5), (32, 32), (64, 40), (2, 2), (1, 9)])
def test_measures_equal_cleanvision_and_pil(shape):
    images = np.random.default_rng(0).integers(0, 256, (4, *shape, 3), np.uint8)
    images[1] //= 20
    images[2] = 7
    found = measure(images)
    np.testing.assert_allclose(found[:, :4], [_cleanvision(each) for each in images], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[:, 4], [np.ptp(each.astype(int), axis=-1).max() for each in images])


def _find(images, sizes=None):
    measures = np.concatenate([measure(each[np.newaxis]) for each in images])
    sizes = np.array([each.shape[:2] for each in images]) if sizes is None else sizes
    return {issue.name: issue for issue in find_issues(measures, sizes)}


@pytest.fixture(scope="module")
def natural():
    """Return smooth random images in color with full contrast."""
    generator = np.random.default_rng(1)
    noise = [Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(20)]
    smooth = [np.asarray(each.resize((32, 32), Image.BICUBIC)).astype(float) for each in noise]
    scaled = [each + generator.normal(0, 20, each.shape) for each in smooth]
    return [np.clip(each, 0, 255).astype(np.uint8) for each in scaled]


CHANGES = {
    "dark": lambda image: image // 8,
    "light": lambda image: 250 + image // 64,
    "low information": lambda image: np.full_like(image, 90),
    "blurred": lambda image: np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(3))),
    "gray": lambda image: np.repeat(image[..., :1], 3, axis=-1),
    "aspect ratio": lambda image: image[:8],
    "size": lambda image: np.tile(image, (3, 3, 1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_issue_is_found_and_only_in_the_changed_image(natural, name):
    assert {name: len(issue.indices) for name, issue in _find(natural).items()} == dict.fromkeys(CHANGES, 0)
    changed = [*natural[:5], CHANGES[name](natural[5]), *natural[6:]]
    found = _find(changed)[name]
    assert found.indices.tolist() == [5]
    assert 0 < found.scores[0] <= 1
    assert found.prevalence == 0.05


def test_the_worst_comes_first_and_the_nature_of_a_data_set_is_no_issue(natural):
    changed = [*natural[:18], natural[18] // 4, natural[19] // 20]
    dark = _find(changed)["dark"]
    assert dark.indices.tolist() == [19, 18]
    assert dark.scores[0] > dark.scores[1]
    gray = _find([CHANGES["gray"](each) for each in natural])["gray"]
    assert (len(gray.indices), gray.prevalence) == (0, 1)


def test_unreadable_examples_have_no_issue():
    measures = np.full((3, len(MEASURES)), np.nan, np.float32)
    issues = find_issues(measures, np.zeros((3, 2), int))
    assert {issue.name: len(issue.indices) for issue in issues} == dict.fromkeys(CHANGES, 0)
