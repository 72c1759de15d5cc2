"""Outliers: examples whose features or pixels are unlike those of the rest of the data set."""

from pathlib import Path

import numpy as np

from resnet_tf.core.progress_line import Progress
from resnet_tf.data.audit.scan import allocate

_DIMENSIONS = 64
_NEIGHBORS = 10
_SAMPLE = 5_000  # examples that the principal components are computed from
_PATTERNS = 128  # principal components of the pixels, at most, and at most one for `_PER_PATTERN` images
_PER_PATTERN = 4
_REFERENCE = 20_000  # examples among which neighbors are searched, so that the time is linear in their number
_DEVIATIONS = 3.5  # of the logarithm of a distance above the median, from which on an example is an outlier
_CHUNK = 1024

Scored = tuple[np.ndarray, np.ndarray]  # indices, int64 [n], and scores in [0, 1), float64 [n]


def find_outliers(features: np.ndarray, rows: np.ndarray, directory: Path) -> Scored:
    """Return the indices of examples far from their neighbors, the farthest first, int64 [n], and scores in [0, 1).

    The distance of an example is the mean of those to its ten nearest neighbors, as in cleanlab's out-of-distribution
    scores (Kuan and Mueller 2022), in the leading principal components. The score is the part of the distance beyond
    the median: 0.5 for twice the median.

    Args:
        features: [N, D].
        rows: rows of the features that are examined, such as one of each group of copies, ascending, int64 [n].
        directory: of temporary files, see `allocate`.
    """
    found, scores = _conspicuous(neighbor_distances(features, rows, directory), 1e-12)
    return rows[found], scores


def find_unexplained(thumbnails: np.ndarray, rows: np.ndarray) -> Scored:
    """Return the indices of images without the patterns that the others have, and scores, as `find_outliers` does.

    Noise, test patterns and text among photos have features near those of textures. The distance of an image is what
    the leading principal components of the pixels of other images leave of it (Jackson and Mudholkar, Control
    procedures for residuals associated with principal component analysis, 1979): each half of the images has the
    components of the other half, because with few images, an outlier is a component of its own.

    Args:
        thumbnails: uint8 [N, h, w, 3].
        rows: indices of the images that are examined, ascending, int64 [n].
    """
    distances = np.zeros(len(rows))
    halves = np.array_split(np.random.default_rng(0).permutation(len(rows)), 2)
    for own, other in (halves, halves[::-1]):
        distances[own] = _residuals(thumbnails, rows[own], rows[other])
    found, scores = _conspicuous(distances, 1 / 255)
    return rows[found], scores


def _conspicuous(distances: np.ndarray, smallest: float) -> Scored:
    """Return the positions of unusually large distances, the largest first, and their scores; see `find_outliers`.

    Args:
        distances: float64 [n].
        smallest: distance below which differences do not matter.
    """
    if len(distances) <= _NEIGHBORS:
        return np.zeros(0, np.int64), np.zeros(0)
    logarithms = np.log(np.maximum(distances, smallest))
    median = np.median(logarithms)
    deviation = 1.4826 * np.median(np.abs(logarithms - median))  # that of a normal distribution
    found = np.flatnonzero(logarithms > median + _DEVIATIONS * max(deviation, 1e-3))
    found = found[np.argsort(-distances[found], kind="stable")]
    return found, 1 - np.exp(median - logarithms[found])


def _residuals(thumbnails: np.ndarray, rows: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Return the distance of images from the leading components of other images, float64 [n], root mean square."""
    from sklearn.utils.extmath import randomized_svd

    sample = _pixels(thumbnails, fitted[:_SAMPLE])
    mean = sample.mean(axis=0)
    components = min(_PATTERNS, len(sample) // _PER_PATTERN)
    if not components:
        return np.zeros(len(rows))
    _, _, axes = randomized_svd(sample - mean, components, random_state=0)
    distances = np.zeros(len(rows))
    for start in range(0, len(rows), _CHUNK):
        part = _pixels(thumbnails, rows[start : start + _CHUNK]) - mean
        left = np.square(part).sum(axis=1) - np.square(part @ axes.T).sum(axis=1)
        distances[start : start + len(part)] = np.sqrt(np.maximum(left, 0) / part.shape[1])
    return distances


def _pixels(thumbnails: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the pixels of images, float32 [n, h * w * 3] in [0, 1]."""
    return thumbnails[rows].reshape(len(rows), -1).astype(np.float32) / 255


def neighbor_distances(features: np.ndarray, rows: np.ndarray, directory: Path) -> np.ndarray:
    """Return the mean distance of each of some examples to its nearest neighbors among them, float64 [n].

    See `find_outliers`.
    """
    count = len(rows)
    reduced = _reduce(features, rows, directory)
    reference = np.sort(np.random.default_rng(0).permutation(count)[:_REFERENCE])
    neighbors = min(_NEIGHBORS, len(reference) - 1)
    distances = np.zeros(count)
    if neighbors < 1:
        return distances
    vectors = np.asarray(reduced[reference])
    norms = np.square(vectors).sum(axis=1)
    with Progress("searching for outliers", noun="image", total=count) as progress:
        for start in range(0, count, _CHUNK):
            part = np.asarray(reduced[start : start + _CHUNK])
            squares = np.square(part).sum(axis=1)[:, np.newaxis] + norms - 2 * part @ vectors.T
            _, own, same = np.intersect1d(np.arange(start, start + len(part)), reference, return_indices=True)
            squares[own, same] = np.inf  # an example is no neighbor of itself
            nearest = np.partition(squares, neighbors - 1, axis=1)[:, :neighbors]
            distances[start : start + len(part)] = np.sqrt(np.maximum(nearest, 0)).mean(axis=1)
            progress.done += len(part)
    return distances


def _reduce(features: np.ndarray, rows: np.ndarray, directory: Path) -> np.ndarray:
    """Return the leading principal components of standardized features, float32 [n, d]."""
    from sklearn.utils.extmath import randomized_svd

    sample = np.sort(np.random.default_rng(0).permutation(rows)[:_SAMPLE])
    vectors = features[sample].astype(np.float32)
    mean, scale = vectors.mean(axis=0), np.maximum(vectors.std(axis=0), 1e-6)
    _, _, axes = randomized_svd((vectors - mean) / scale, min(_DIMENSIONS, *vectors.shape), random_state=0)
    reduced = allocate(directory, "components", (len(rows), len(axes)), np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = features[rows[start : start + _CHUNK]].astype(np.float32)
        reduced[start : start + _CHUNK] = (part - mean) / scale @ axes.T
    return reduced
