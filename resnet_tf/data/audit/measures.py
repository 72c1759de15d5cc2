"""Measures of image quality, and the images that are conspicuous by one of them.

Definitions and thresholds are those of cleanvision 0.3.7 (`issue_managers/image_property.py`), for images of any data
source, computed for a batch at once. Blur differs: cleanvision's edge filter leaves the outermost pixels as they are,
which hides the blur of small images, and its exception for diagrams depends on the number of pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

# Columns of `measure`.
MEASURES = ("brightness_5", "brightness_99", "entropy", "edges", "chroma")
MEASURED_SIZE = 64  # pixels of the longer edge of a measured image, at most; that of cleanvision for blur

_MAX_PREVALENCE = 0.5  # fraction of a data set from which on an issue is its nature
_LUMA = np.array([19595, 38470, 7471])  # of PIL's mode L, in 1/65536
_BRIGHTNESS = np.array([0.241, 0.691, 0.068])  # weights of squared channels
# Edges of an image that is not blurred. Of CIFAR-10, 0.2 % have fewer, and all have after a Gaussian blur of 2 pixels;
# so have half of ImageNet's photos after one of 8 pixels, and none before.
_SHARP = 20.0
_GRAY_LEVELS = 2.0  # largest difference of channels in a gray image


@dataclass(frozen=True)
class Issue:
    """Examples with one issue of quality.

    Attributes:
        name: `dark`, `light`, `low information`, `blurred`, `gray`, `aspect ratio` or `size`.
        indices: indices of the examples, the most severe first, int64 [n].
        scores: severity of each in [0, 1], float64 [n].
        values: the measured value of each, float64 [n].
        unit: description of the values.
        prevalence: fraction of the data set that has the issue; `indices` is empty if it is more than a half.
    """

    name: str
    indices: np.ndarray
    scores: np.ndarray
    values: np.ndarray
    unit: str
    prevalence: float


def measure(images: np.ndarray) -> np.ndarray:
    """Return the measures of images of one size, float32 [B, M], in the order of `MEASURES`.

    - `brightness_5`, `brightness_99`: percentiles of the perceived brightness of the pixels, in [0, 1].
    - `entropy`: Shannon entropy of the histogram of all channels, in bits.
    - `edges`: standard deviation of the image after an edge filter; small for blurred images.
    - `chroma`: largest difference between the channels of a pixel, in levels of 0 to 255.

    Args:
        images: RGB, uint8 [B, h, w, 3].
    """
    count, pixels = len(images), images.shape[1] * images.shape[2]
    squares = images.reshape(count, pixels, 3).astype(np.float64) ** 2
    dark, bright = np.percentile(np.sqrt(squares @ _BRIGHTNESS) / 255, [5, 99], axis=1)
    channels = images.reshape(count, pixels, 3).transpose(0, 2, 1).reshape(count, 3 * pixels)
    bands = np.repeat(np.arange(3), pixels)
    colors = _histograms(channels + 256 * bands, 3 * 256)
    gray = ((images @ _LUMA + 2**15) >> 16).astype(np.int64)
    edges = _find_edges(gray)
    chroma = images.max(axis=-1).astype(int) - images.min(axis=-1)
    return np.stack(
        [
            dark,
            bright,
            _entropy(colors),
            edges.reshape(count, -1).std(axis=1) if edges.size else np.zeros(count),
            chroma.reshape(count, -1).max(axis=1),
        ],
        axis=1,
    ).astype(np.float32)


def _histograms(values: np.ndarray, bins: int) -> np.ndarray:
    """Return the counts of the values 0 to `bins` - 1 in each row, int64 [B, bins]."""
    rows = np.arange(len(values))[:, np.newaxis] * bins
    return np.bincount((values + rows).ravel(), minlength=len(values) * bins).reshape(len(values), bins)


def _entropy(counts: np.ndarray) -> np.ndarray:
    fractions = counts / counts.sum(axis=1, keepdims=True)
    return -(fractions * np.log2(fractions, out=np.zeros_like(fractions), where=fractions > 0)).sum(axis=1)


def _find_edges(gray: np.ndarray) -> np.ndarray:
    """Return gray images after PIL's filter `FIND_EDGES`, without the outermost pixels, int64 [B, h - 2, w - 2]."""
    height, width = (max(edge - 2, 0) for edge in gray.shape[1:])
    windows = (gray[:, y : height + y, x : width + x] for y in range(3) for x in range(3))
    return np.clip(9 * gray[:, 1 : 1 + height, 1 : 1 + width] - sum(windows), 0, 255)


def find_issues(measures: np.ndarray, sizes: np.ndarray) -> list[Issue]:
    """Return the conspicuous examples of a data set, by issue.

    Args:
        measures: see `measure`, float32 [N, M]; NaN for examples that cannot be read.
        sizes: (height, width) of the examples in pixels, int [N, 2].
    """
    columns = dict(zip(MEASURES, measures.T.astype(np.float64), strict=True))
    issues = []
    for name, (score, unit) in _ISSUES.items():
        scores, values = score(columns, sizes.astype(np.float64))
        found = np.flatnonzero(np.nan_to_num(scores) > 0)
        prevalence = len(found) / max(len(measures), 1)
        if prevalence > _MAX_PREVALENCE:
            found = found[:0]
        found = found[np.argsort(-scores[found], kind="stable")]
        issues.append(Issue(name, found, np.clip(scores[found], 0, 1), values[found], unit, prevalence))
    return issues


Columns = Mapping[str, np.ndarray]
# From measures and sizes to the severity of each example in (0, 1], not positive where it has no issue, and the value.
Score = Callable[[Columns, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _below(values: np.ndarray, threshold: float) -> np.ndarray:
    """Return 1 for the value 0, falling to 0 at the threshold, and negative values beyond it."""
    return 1 - values / threshold


def _score_dark(columns: Columns, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _below(columns["brightness_99"], 0.32), columns["brightness_99"]


def _score_light(columns: Columns, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _below(1 - columns["brightness_5"], 0.05), columns["brightness_5"]


def _score_information(columns: Columns, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _below(np.minimum(0.1 * columns["entropy"], 1), 0.3), columns["entropy"]


def _score_blur(columns: Columns, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # An image of one color has no edges, either, but little information.
    is_flat = _score_information(columns, sizes)[0] > 0
    return np.where(is_flat | (sizes.min(axis=1) < 3), 0, _below(columns["edges"], _SHARP)), columns["edges"]


def _score_gray(columns: Columns, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.where(columns["chroma"] <= _GRAY_LEVELS, 1.0, 0.0), columns["chroma"]


def _score_aspect(columns: Columns, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ratios = sizes.min(axis=1) / np.maximum(sizes.max(axis=1), 1)
    return np.where(sizes.all(axis=1), _below(ratios, 0.35), 0), ratios


def _score_size(columns: Columns, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the severity of sizes beyond three interquartile ranges from the quartiles (Tukey 1977).

    They also differ from the quartiles by a factor of two, as most sizes of a data set may be equal.
    """
    edges = np.sqrt(sizes.prod(axis=1))
    known = edges > 0
    if not known.any():
        return np.zeros(len(sizes)), edges
    low, high = np.percentile(edges[known], [25, 75])
    least, most = min(low - 3 * (high - low), low / 2), max(high + 3 * (high - low), 2 * high)
    excess = np.maximum((least - edges) / max(least, 1), (edges - most) / np.maximum(edges, 1))
    return np.where(known, excess, 0), edges


_ISSUES: dict[str, tuple[Score, str]] = {
    "dark": (_score_dark, "brightness of the brightest pixels, in [0, 1]"),
    "light": (_score_light, "brightness of the darkest pixels, in [0, 1]"),
    "low information": (_score_information, "entropy of the histogram, bits"),
    "blurred": (_score_blur, "standard deviation after an edge filter"),
    "gray": (_score_gray, "largest difference of channels, levels"),
    "aspect ratio": (_score_aspect, "shorter by longer edge"),
    "size": (_score_size, "square root of the pixels"),
}
