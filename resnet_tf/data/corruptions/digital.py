"""Digital corruptions: contrast, elastic transform, pixelation and JPEG compression."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from resnet_tf.data.corruptions import axes

Generators = Sequence[np.random.Generator]


def contrast(images: np.ndarray, amount: float, generators: Generators) -> np.ndarray:
    """Scale the differences from the mean of each channel."""
    means = images.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    return (images - means) * np.float32(amount) + means


def elastic_transform(images: np.ndarray, parameters: tuple[float, float, float], generators: Generators) -> np.ndarray:
    """Apply a random affine map, then move each pixel by a smooth random field.

    `parameters` are amplitude and sigma of the field, and the largest move of the three points that define the affine
    map, as fractions of the shorter edge.
    """
    batch, height, width, _ = images.shape
    amplitude, sigma, jitter = (value * min(height, width) for value in parameters)
    center, arm = np.array([width // 2, height // 2], np.float32), min(height, width) // 3
    points = center + arm * np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
    moved, fields = [], []
    for generator in generators:
        moved.append(points + generator.uniform(-jitter, jitter, (3, 2)).astype(np.float32))
        fields.append([generator.uniform(-1, 1, (height, width)) for _ in range(2)])
    y, x = np.mgrid[:height, :width].astype(np.float64)
    # From the moved points back to the original ones: a map from output to input positions, [B, 3, 2].
    homogeneous = np.concatenate([np.stack(moved), np.ones((batch, 3, 1))], axis=-1)
    maps = np.linalg.solve(homogeneous, np.broadcast_to(points, (batch, 3, 2)))
    source = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3) @ maps  # [B, H * W, 2]
    source_x, source_y = np.moveaxis(source, -1, 0).reshape(2, batch, height, width)
    turned = _sample(images, source_y, source_x, "mirror")
    smooth = [[axes.gaussian(size, sigma, "reflect", 3.0)] for size in (height, width)]
    dx, dy = np.moveaxis(axes.apply(np.moveaxis(np.array(fields), 1, -1), *smooth) * amplitude, -1, 0)
    return _sample(turned, y + dy, x + dx, "reflect")


def _sample(images: np.ndarray, y: np.ndarray, x: np.ndarray, border: str) -> np.ndarray:
    """Return images at positions, each [B, H, W], by bilinear interpolation; see `axes.border_index`."""
    batch, height, width, channels = images.shape
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    below, right = (y - top)[..., np.newaxis].astype(np.float32), (x - left)[..., np.newaxis].astype(np.float32)
    start = np.arange(batch)[:, np.newaxis, np.newaxis] * (height * width)
    rows = [start + width * axes.border_index(top + step, height, border) for step in (0, 1)]
    columns = [axes.border_index(left + step, width, border) for step in (0, 1)]
    pixels = images.reshape(-1, channels)
    upper, lower = (pixels[row + columns[0]] * (1 - right) + pixels[row + columns[1]] * right for row in rows)
    return upper * (1 - below) + lower * below


def pixelate(images: np.ndarray, scale: float, generators: Generators) -> np.ndarray:
    """Reduce and enlarge with PIL's BOX filter, which rounds to 8 bits after each axis."""
    sizes = images.shape[1:3]
    reduced = [int(size * scale) or 1 for size in sizes]
    for before, after in ((sizes, reduced), (reduced, sizes)):
        for axis in (2, 1):
            images = _round(axes.apply_along(axis, images, axes.box_resize(before[axis - 1], after[axis - 1])))
    return images


def _round(images: np.ndarray) -> np.ndarray:
    return np.floor(images * 255.0 + np.float32(0.5)) / np.float32(255)


def jpeg_compression(images: np.ndarray, quality: int, generators: Generators) -> np.ndarray:
    """Compress as JPEG, with half of the resolution for colors."""
    return compress(np.rint(images * 255).astype(np.uint8), quality) / np.float32(255)


def compress(images: np.ndarray, quality: int) -> np.ndarray:
    """Return images, uint8 [B, H, W, 3], as they are after compression as JPEG, with PIL's default settings."""
    encoded = (tf.io.encode_jpeg(image, quality=quality) for image in images)
    return np.stack([tf.io.decode_jpeg(each, dct_method="INTEGER_ACCURATE").numpy() for each in encoded])
