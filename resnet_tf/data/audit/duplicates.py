"""Duplicates: examples of equal pixels, and examples that look alike, in any order, class and split.

Images look alike if their low frequencies agree: the 8x8 lowest coefficients of the discrete cosine transform of each
channel, as in perceptual hashes (Zauner, Implementation and benchmarking of perceptual image hash functions, 2010),
but compared as vectors, without rounding to bits. Another encoding, size, brightness, or a slight crop changes them
little.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from resnet_tf.core.progress_line import Progress

EXACT, NEAR, MIRRORED = "exact", "near", "mirrored"  # how the examples of a group match

_FREQUENCIES = 8  # of a channel in each direction
_DIMENSIONS = 24  # in which candidates are searched
_NEIGHBORS = 8  # of an example that are compared, at most
_DISTANCE = 0.25  # largest one of images that look alike: correlation 0.97
_DISTANCE_PIXELS = 0.7  # the same of all pixels: half of the usual distance of unrelated images
# Largest distances relative to those that are usual between similar images of the data set: of low frequencies, and of
# all pixels.
_RELATIVE, _RELATIVE_PIXELS = 0.35, 0.5
_USUAL = 5  # neighbor of an image at a usual distance
# Distances up to which images are duplicates in any data set, also one where most images have several copies. Images of
# Fashion-MNIST, CIFAR-10 and the digits are not that close to others, apart from copies.
_SURE, _SURE_PIXELS = 0.05, 0.15
_FLAT = 4.0  # standard deviation of pixels below which an image has no content to compare, in levels of 0 to 255
_SAMPLE = 2000
_CHUNK = 4096


@dataclass(frozen=True)
class Group:
    """Examples that are duplicates of one another.

    Attributes:
        indices: their indices, ascending, int64 [n].
        score: similarity in [0, 1]: 1 for equal pixels, otherwise the correlation of low frequencies.
        match: `EXACT`, `NEAR`, or `MIRRORED`: some are mirror images of others.
    """

    indices: np.ndarray
    score: float
    match: str


def find_exact(hashes: np.ndarray, sizes: np.ndarray, readable: np.ndarray) -> list[Group]:
    """Return the groups of examples with equal pixels.

    Args:
        hashes: of the pixels, uint64 [N].
        sizes: (height, width), int [N, 2].
        readable: examples that are compared, bool [N].
    """
    known = np.flatnonzero(readable)
    keys = np.stack([hashes[known], *sizes[known].T.astype(np.uint64)], axis=1)
    _, inverse, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    return [Group(known[each], 1.0, EXACT) for each in _members(inverse.reshape(-1)) if counts[inverse[each[0]]] > 1]


def find_near(thumbnails: np.ndarray, candidates: np.ndarray) -> list[Group]:
    """Return the groups of examples that look alike, the most similar first.

    A pair counts if its distance is small both in itself and compared with that of similar images of the data set, so
    that pairs of trousers are not duplicates of one another.

    Args:
        thumbnails: uint8 [N, H, W, 3].
        candidates: indices of the examples that are compared, such as one of each `find_exact`, int64 [n].
    """
    with Progress("searching for duplicates", noun="image", total=2 * len(candidates)) as progress:
        candidates = _with_content(thumbnails, candidates)
        if len(candidates) < 2:
            return []
        limits = _fit(thumbnails, candidates)
        pairs = [_find_pairs(thumbnails, candidates, limits, mirrored, progress) for mirrored in (False, True)]
    ones, others, similarities = (np.concatenate(each) for each in zip(*pairs, strict=True))
    is_mirrored = np.repeat([False, True], [len(each[0]) for each in pairs])
    groups = []
    for members, edges in _connect(ones, others, len(thumbnails)):
        match = MIRRORED if is_mirrored[edges].all() else NEAR
        groups.append(Group(members, float(similarities[edges].min()), match))
    return sorted(groups, key=lambda group: -group.score)


def describe(images: np.ndarray) -> np.ndarray:
    """Return the low frequencies of images as vectors of length 1, float32 [B, 192]; products are correlations.

    Args:
        images: uint8 [B, H, W, 3].
    """
    from scipy.fft import dctn

    coefficients = dctn(images.astype(np.float32), axes=(1, 2), norm="ortho")[:, :_FREQUENCIES, :_FREQUENCIES]
    coefficients[:, 0, 0] -= coefficients[:, 0, 0].mean(axis=-1, keepdims=True)  # brightness
    vectors = coefficients.reshape(len(images), math.prod(coefficients.shape[1:]))
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def _with_content(thumbnails: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return the candidates without those of a single color."""
    flat = [thumbnails[chunk].reshape(len(chunk), -1).std(axis=1) < _FLAT for chunk in _chunks(candidates)]
    return candidates[~np.concatenate(flat)] if flat else candidates


@dataclass(frozen=True)
class _Limits:
    """Distances of duplicates, and the space in which candidates are searched.

    Attributes:
        projection: from descriptions to few dimensions, float32 [192, d]. It is orthogonal and shortens distances, so
            that no pair is missed.
        description: largest distance of descriptions.
        pixels: largest distance of all pixels.
    """

    projection: np.ndarray
    description: float
    pixels: float


def _fit(thumbnails: np.ndarray, candidates: np.ndarray) -> _Limits:
    """Return the limits for a data set, from fifth neighbors within a sample, which has few duplicates.

    A data set without fifth neighbors has no usual distance, and the limits of any data set.
    """
    sample = thumbnails[np.sort(np.random.default_rng(0).permutation(candidates)[:_SAMPLE])]
    vectors = describe(sample)
    _, _, axes = np.linalg.svd(vectors, full_matrices=False)
    projection = axes[:_DIMENSIONS].T
    if len(sample) <= _USUAL:
        return _Limits(projection, _DISTANCE, _DISTANCE_PIXELS)
    distances = np.maximum(2 - 2 * vectors @ vectors.T, 0)
    order = np.argsort(distances, axis=1)[:, _USUAL]
    usual = np.sqrt(np.median(np.take_along_axis(distances, order[:, np.newaxis], axis=1)))
    usual_pixels = np.median(_pixel_distances(sample, sample[order]))
    description = float(np.clip(_RELATIVE * usual, _SURE, _DISTANCE))
    return _Limits(projection, description, max(_RELATIVE_PIXELS * float(usual_pixels), _SURE_PIXELS))


def _pixel_distances(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the distance of each pair of images, after subtraction of the mean and division by the length, [B]."""
    one, two = (each.reshape(len(each), math.prod(each.shape[1:])).astype(np.float32) for each in (images, others))
    one, two = (each - each.mean(axis=1, keepdims=True) for each in (one, two))
    one, two = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-6) for each in (one, two))
    return np.linalg.norm(one - two, axis=1)


def _find_pairs(
    thumbnails: np.ndarray, candidates: np.ndarray, limits: _Limits, mirrored: bool, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs of duplicates: two arrays of indices, the smaller ones first, int64 [n], and their correlations [n].

    A pair is found from both or from one of its images: the other one can have more neighbors than are compared.

    With `mirrored`, one image of each pair is compared as its mirror image.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(np.concatenate([describe(thumbnails[each]) @ limits.projection for each in _chunks(candidates)]))
    found = []
    for chunk in _chunks(candidates):
        images = thumbnails[chunk][:, :, ::-1] if mirrored else thumbnails[chunk]
        vectors = describe(images)
        # One neighbor more: the first is the example itself.
        distances, positions = tree.query(
            vectors @ limits.projection, _NEIGHBORS + 1, distance_upper_bound=limits.description + 1e-6
        )
        rows, columns = np.nonzero(np.isfinite(distances))
        others = candidates[positions[rows, columns]]
        distinct = chunk[rows] != others
        rows, others = rows[distinct], others[distinct]
        similarities = (vectors[rows] * describe(thumbnails[others])).sum(axis=1)
        alike = 2 - 2 * similarities <= limits.description**2
        rows, others, similarities = rows[alike], others[alike], similarities[alike]
        alike = _pixel_distances(images[rows], thumbnails[others]) <= limits.pixels
        pairs = np.sort([chunk[rows[alike]], others[alike]], axis=0)
        found.append((*pairs, similarities[alike]))
        progress.done += len(chunk)
    ones, others, similarities = (np.concatenate(each) for each in zip(*found, strict=True))
    return ones, others, similarities


def _connect(ones: np.ndarray, others: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the connected groups of a graph: indices of the examples, and positions of the pairs in it."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(ones):
        return
    _, labels = connected_components(coo_matrix((np.ones(len(ones), bool), (ones, others)), (count, count)))
    for edges in _members(labels[ones]):
        yield np.unique(np.concatenate([ones[edges], others[edges]])), edges


def _members(labels: np.ndarray) -> list[np.ndarray]:
    """Return the positions of each label, in the order of the labels."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(labels) else []


def _chunks(indices: np.ndarray) -> list[np.ndarray]:
    return [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]
