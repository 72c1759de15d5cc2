"""Duplicates: planted copies of several types among images that differ."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from resnet_tf.data.audit import duplicates
from resnet_tf.data.audit.duplicates import EXACT, MIRRORED, NEAR, find_exact, find_near


def _smooth(generator, count, size=32):
    """Return random images with structure at all scales, uint8 [count, size, size, 3]."""
    images = np.zeros((count, size, size, 3))
    for cells in (2, 4, 8, 16, 32):
        coarse = generator.normal(0, 2 / cells**0.5, (count, cells, cells, 3))
        images += coarse.repeat(size // cells, axis=1).repeat(size // cells, axis=2)
    low, high = images.min(), images.max()
    return (255 * (images - low) / (high - low)).astype(np.uint8)


def _jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=70)
    return np.asarray(Image.open(file))


def _resized(image):
    return np.asarray(Image.fromarray(image).resize((22, 22), Image.BILINEAR).resize((32, 32), Image.BILINEAR))


CHANGES = {
    "JPEG": (_jpeg, NEAR),
    "another size": (_resized, NEAR),
    "brighter": (lambda image: np.clip(image * 1.1 + 5, 0, 255).astype(np.uint8), NEAR),
    "mirrored": (lambda image: image[:, ::-1], MIRRORED),
}


def test_exact_copies_are_grouped_by_pixels_and_size():
    hashes = np.array([5, 7, 5, 5, 9, 7], np.uint64)
    sizes = np.array([(2, 3), (4, 4), (2, 3), (3, 2), (1, 1), (4, 4)])
    groups = find_exact(hashes, sizes, np.array([True] * 5 + [False]))
    assert [(each.indices.tolist(), each.score, each.match) for each in groups] == [([0, 2], 1.0, EXACT)]
    assert find_exact(hashes[:0], sizes[:0], np.zeros(0, bool)) == []


@pytest.mark.parametrize("name", CHANGES)
def test_changed_copies_are_found_and_nothing_else(name):
    change, match = CHANGES[name]
    images = _smooth(np.random.default_rng(0), 300)
    images[200] = change(images[17])
    (group,) = find_near(images, np.arange(300))
    assert (group.indices.tolist(), group.match) == ([17, 200], match)
    assert 0.969 <= group.score <= 1


def test_groups_are_connected_and_only_candidates_are_compared():
    images = _smooth(np.random.default_rng(1), 100)
    images[50], images[60], images[80] = _jpeg(images[3]), _resized(images[3]), _jpeg(images[9])
    found = find_near(images, np.setdiff1d(np.arange(100), [80]))
    assert [each.indices.tolist() for each in found] == [[3, 50, 60]]
    assert find_near(images, np.array([3])) == []


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_copies_are_found_among_few_images(count, copies):
    images = _smooth(np.random.default_rng(0), 1 + count + copies)
    images[1 + count :] = [_jpeg(images[0]), _resized(images[0])][:copies]
    (group,) = find_near(images, np.arange(len(images)))
    assert group.indices.tolist() == [0, *range(1 + count, len(images))]
    assert find_near(images[: 1 + count], np.arange(1 + count)) == []


def test_copies_are_found_where_every_image_has_several():
    """Frames of videos that differ in their noise."""
    generator = np.random.default_rng(5)
    frames = np.repeat(_smooth(generator, 20), 7, axis=0) + generator.normal(0, 3, (140, 32, 32, 3))
    found = find_near(np.clip(frames, 0, 255).astype(np.uint8), np.arange(140))
    expected = np.arange(140).reshape(20, 7).tolist()
    assert sorted(each.indices.tolist() for each in found) == expected


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_image_with_more_variants_than_neighbors_has_them_all_in_any_order(mirrored):
    images = _smooth(np.random.default_rng(4), 300)
    variants = np.clip(images[0] + 0.25 * (images[1:21] - 128.0), 0, 255)
    images[1:21] = variants[:, :, ::-1] if mirrored else variants
    vectors, limits = duplicates.describe(images[:21]), duplicates._fit(images, np.arange(300))
    original = duplicates.describe(images[:1, :, ::-1] if mirrored else images[:1])
    alike = np.linalg.norm(vectors - original, axis=1) < limits.description
    assert alike.sum() > duplicates._NEIGHBORS + 4
    for order in (np.arange(300), np.arange(300)[::-1]):
        (group,) = find_near(images[order], np.arange(300))
        assert set(order[group.indices]) >= {0, *np.flatnonzero(alike)}


def test_images_of_one_color_are_no_duplicates():
    images = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (0, 100, 100, 255)])
    assert find_near(images, np.arange(4)) == []


def test_similar_images_of_a_uniform_data_set_are_no_duplicates():
    """Images of one shape with small differences, and one copy."""
    generator = np.random.default_rng(2)
    shape = _smooth(generator, 1).astype(float)
    images = np.clip(shape + 0.15 * (_smooth(generator, 200) - 128.0), 0, 255).astype(np.uint8)
    images[150] = images[20]
    images[150, 0, 0] += 1
    limit = duplicates._fit(images, np.arange(200)).description
    assert limit < duplicates._DISTANCE / 2
    assert [each.indices.tolist() for each in find_near(images, np.arange(200))] == [[20, 150]]


def test_descriptions_are_normalized_low_frequencies():
    images = _smooth(np.random.default_rng(3), 2)
    expected = dctn(images[0].astype(float), axes=(0, 1), norm="ortho")[:8, :8]
    expected[0, 0] -= expected[0, 0].mean()
    found = duplicates.describe(images)
    np.testing.assert_allclose(found[0], expected.ravel() / np.linalg.norm(expected), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
