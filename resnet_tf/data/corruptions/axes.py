"""Linear maps along the axes of images, as matrices: convolution, zoom and reduction, applied to batches at once."""

import functools
from collections.abc import Sequence

import numpy as np


def border_index(positions: np.ndarray, size: int, border: str) -> np.ndarray:
    """Return the index of the pixel that is at integer positions, also outside of an axis.

    Args:
        positions: integers.
        size: length of the axis.
        border: `nearest` (a a | a b c | c c), `reflect` (b a | a b c | c b) or `mirror` (c b | a b c | b a).
    """
    if border == "nearest" or size == 1:
        return np.clip(positions, 0, size - 1)
    repeated = 1 if border == "mirror" else 0
    period = 2 * (size - repeated)
    folded = np.mod(positions, period)
    return np.where(folded < size, folded, period - 1 + repeated - folded)


@functools.cache
def convolution(size: int, kernel: tuple[float, ...], border: str) -> np.ndarray:
    """Return the correlation with a centered kernel of odd length along an axis, float32 [size, size]."""
    matrix = np.zeros((size, size))
    outputs = np.arange(size)
    for offset, weight in enumerate(kernel, start=-(len(kernel) // 2)):
        np.add.at(matrix, (outputs, border_index(outputs + offset, size, border)), weight)
    return _frozen(matrix)


@functools.cache
def gaussian(size: int, sigma: float, border: str = "nearest", truncate: float = 4.0) -> np.ndarray:
    """Return a Gaussian filter along an axis, float32 [size, size], cut at `truncate` standard deviations."""
    radius = int(truncate * sigma + 0.5)
    return convolution(size, gaussian_kernel(radius, sigma), border)


def gaussian_kernel(radius: int, sigma: float) -> tuple[float, ...]:
    """Return the weights of a Gaussian at integers from -`radius` to `radius`, with a sum of 1."""
    if not radius:
        return (1.0,)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return tuple((weights / weights.sum()).tolist())


@functools.cache
def zoom(size: int, factor: float) -> np.ndarray:
    """Return the enlargement of the center of an axis, float32 [size, size], by linear interpolation.

    The center has `size` / `factor` pixels, rounded up, whose first and last become the ends of the enlarged axis.
    """
    center = int(np.ceil(size / factor))
    enlarged = round(center * factor)
    start, first = (size - center) // 2, (enlarged - size) // 2
    positions = np.arange(first, first + size) * (center - 1) / max(enlarged - 1, 1)
    left = np.minimum(positions.astype(int), max(center - 2, 0))
    right, outputs = np.minimum(left + 1, center - 1), np.arange(size)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (outputs, start + left), 1 - (positions - left))
    np.add.at(matrix, (outputs, start + right), positions - left)
    return _frozen(matrix)


@functools.cache
def box_resize(size: int, new: int) -> np.ndarray:
    """Return the resizing of an axis as PIL's BOX filter does, float32 [new, size]."""
    scale = size / new
    half = max(scale, 1.0) / 2
    matrix = np.zeros((new, size))
    for output in range(new):
        center = (output + 0.5) * scale
        first, last = max(int(center - half + 0.5), 0), min(int(center + half + 0.5), size)
        inputs = np.arange(first, last)
        distances = (inputs + 0.5 - center) / (2 * half)
        matrix[output, inputs] = (distances > -0.5) & (distances <= 0.5)
    return _frozen(matrix / matrix.sum(axis=1, keepdims=True))


def apply(images: np.ndarray, rows: Sequence[np.ndarray], columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of `rows[k] @ image @ columns[k].T` over all terms k, for every image and channel.

    Args:
        images: float32 [B, H, W, C].
        rows: of each term, a map of the vertical axis, float32 [h, H].
        columns: of each term, a map of the horizontal axis, float32 [w, W].

    Returns:
        float32 [B, h, w, C].
    """
    planes = np.ascontiguousarray(np.moveaxis(images, -1, 1), np.float32)  # [B, C, H, W]
    batch, channels, _, width = planes.shape
    terms, height = len(rows), rows[0].shape[0]
    partial = np.concatenate(rows) @ planes  # [B, C, terms * h, W]
    if terms > 1:
        partial = partial.reshape(batch, channels, terms, height, width).swapaxes(2, 3)
        partial = partial.reshape(batch, channels, height, terms * width)
    return np.moveaxis(partial @ np.concatenate([each.T for each in columns]), 1, -1)


def apply_along(axis: int, images: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return images, float32 [B, H, W, C], with a map of their vertical axis (1) or horizontal axis (2) applied."""
    moved = np.ascontiguousarray(images.swapaxes(1, axis), np.float32)
    batch, size, *others = moved.shape
    return (matrix @ moved.reshape(batch, size, -1)).reshape(batch, -1, *others).swapaxes(1, axis)


def _frozen(matrix: np.ndarray) -> np.ndarray:
    """Return a matrix as float32 that cannot be changed, since it is cached."""
    result = matrix.astype(np.float32)
    result.setflags(write=False)
    return result
