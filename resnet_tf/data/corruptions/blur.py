"""Blur: defocus, frosted glass, motion and zoom."""

import functools
import math
from collections.abc import Sequence

import numpy as np

from resnet_tf.data.corruptions import axes

Generators = Sequence[np.random.Generator]


def defocus_blur(images: np.ndarray, parameters: tuple[float, float], generators: Generators) -> np.ndarray:
    """Convolve with a disk, whose edge is smoothed: `parameters` are its radius and the sigma of the smoothing."""
    height, width = images.shape[1:3]
    terms = _disk_terms(*parameters)
    rows = [axes.convolution(height, vertical, "mirror") for vertical, _ in terms]
    columns = [axes.convolution(width, horizontal, "mirror") for _, horizontal in terms]
    return axes.apply(images, rows, columns)


@functools.cache
def _disk_terms(radius: float, sigma: float) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Return a smoothed disk as a sum of products of a vertical and a horizontal kernel, by singular values."""
    extent, smoothing = (8, 1) if radius <= 8 else (int(radius), 2)
    y, x = np.mgrid[-extent : extent + 1, -extent : extent + 1]
    disk = (x**2 + y**2 <= radius**2).astype(float)
    smooth = axes.convolution(len(disk), axes.gaussian_kernel(smoothing, sigma), "mirror").astype(float)
    kernel = smooth @ (disk / disk.sum()) @ smooth.T
    left, values, right = np.linalg.svd(kernel)
    count = int(np.sum(values > 1e-6 * values[0]))
    return [
        (tuple((value * left[:, term]).tolist()), tuple(right[term].tolist()))
        for term, value in enumerate(values[:count])
    ]


def glass_blur(images: np.ndarray, parameters: tuple[float, int, int], generators: Generators) -> np.ndarray:
    """Blur, move pixels locally, and blur again.

    `parameters` are the sigma of both blurs, the largest distance, and the number of rounds. The published code is
    meant to swap two pixels, but its assignment of NumPy views copies one onto the other; so does this function.
    """
    sigma, distance, rounds = parameters
    batch, height, width, channels = images.shape
    rows, columns = [axes.gaussian(height, sigma)], [axes.gaussian(width, sigma)]
    blurred = np.floor(axes.apply(images, rows, columns) * 255.0 + 1e-3) / np.float32(255)
    pixels = blurred.reshape(batch, height * width, channels)
    for image, generator in enumerate(generators):
        for _ in range(rounds):
            pixels[image] = pixels[image, _glass_sources(height, width, distance, generator)]
    return axes.apply(pixels.reshape(images.shape), rows, columns)


def _glass_sources(height: int, width: int, distance: int, generator: np.random.Generator) -> np.ndarray:
    """Return the index of the pixel whose value each pixel has after one round, int64 [height * width].

    The pixels are visited from the lower right corner to the upper left, and each takes the present value of a
    neighbor: that of the image if the neighbor is visited later or never, and else what the neighbor itself has taken.
    """
    y, x = np.meshgrid(
        np.arange(height - distance, distance, -1), np.arange(width - distance, distance, -1), indexing="ij"
    )
    visited = (y * width + x).ravel()
    moves = generator.integers(-distance, distance, (len(visited), 2))  # horizontal, vertical; the end is excluded
    neighbors = visited + moves[:, 1] * width + moves[:, 0]
    order = np.full(height * width, len(visited))
    order[visited] = np.arange(len(visited))
    count = height * width
    # Index k stands for the final value of pixel k, and `count` + k for its value in the image.
    sources = np.arange(2 * count)
    sources[:count] += count
    sources[visited] = np.where(order[neighbors] < np.arange(len(visited)), neighbors, count + neighbors)
    while (found := sources[:count]).min() < count:
        sources[:count] = sources[found]  # doubles the length of the resolved chains
    return sources[:count] - count


def motion_blur(images: np.ndarray, parameters: tuple[int, float], generators: Generators) -> np.ndarray:
    """Blur along a line of a random angle; `parameters` are radius and sigma of ImageMagick's motion blur."""
    angles = [each.uniform(-45, 45) for each in generators]
    return move(images, *parameters, angles)


def move(images: np.ndarray, radius: float, sigma: float, angles: Sequence[float]) -> np.ndarray:
    """Return the weighted mean of each image and its copies along a line, rounded to 8 bits, as ImageMagick does.

    Args:
        images: float32 [B, H, W, C] in [0, 1].
        radius: half of the number of copies.
        sigma: standard deviation of the half Gaussian of weights, in pixels.
        angles: of each line, in degrees.
    """
    height, width = images.shape[1:3]
    count = 2 * math.ceil(radius) + 1
    weights = np.exp(-(np.arange(count) ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).astype(np.float32)
    padded = np.pad(images, ((0, 0), (count, count), (count, count), (0, 0)), "edge")
    moved = np.zeros(images.shape, np.float32)
    for image, source, angle in zip(moved, padded, np.deg2rad(angles), strict=True):
        y = np.ceil(np.arange(count) * np.sin(angle) - 0.5).astype(int) + count
        x = np.ceil(np.arange(count) * np.cos(angle) - 0.5).astype(int) + count
        for weight, top, left in zip(weights, y.tolist(), x.tolist(), strict=True):
            image += weight * source[top : top + height, left : left + width]
    return np.rint(moved * 255.0) / np.float32(255)


def zoom_blur(images: np.ndarray, parameters: tuple[float, float], generators: Generators) -> np.ndarray:
    """Return the mean of an image and its enlargements; `parameters` are the end and the step of the factors from 1."""
    height, width = images.shape[1:3]
    factors = np.arange(1, *parameters).tolist()
    rows = [axes.zoom(height, factor) for factor in factors]
    columns = [axes.zoom(width, factor) for factor in factors]
    return (images + axes.apply(images, rows, columns)) / (len(factors) + 1)
