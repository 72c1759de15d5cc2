"""Antialiased bilinear resizing as two matrix products, which every device computes."""

import functools

import numpy as np
import tensorflow as tf


def resize(images: tf.Tensor, size: tuple[int, ...]) -> tf.Tensor:
    """Resize images, equal to `tf.image.resize(images, size, antialias=True)` to 1e-5.

    TensorFlow's kernel, `ScaleAndTranslate`, does not exist for TPUs and GPUs.

    Args:
        images: float [B, H, W, C].
        size: height and width of the result, in pixels.

    Returns:
        Images of the same dtype, [B, *size, C].
    """
    rows, columns = (
        tf.constant(weights(*lengths), images.dtype) for lengths in zip(images.shape[1:3], size, strict=True)
    )
    # The two products sum over rows and then over columns, without a transposed copy of the images.
    return tf.einsum("jw,biwc->bijc", columns, tf.einsum("ih,bhwc->biwc", rows, images))


@functools.cache
def weights(length: int, size: int) -> np.ndarray:
    """Return the weights of the pixels of a line for each pixel of the resized line, float32 [size, length].

    A pixel of the result is the mean of those below a triangle, whose half width is one pixel of the coarser line, with
    pixel centers at halves: bilinear interpolation upwards, and no aliasing downwards. In float32 throughout, as the
    kernel of TensorFlow, whose rounding of the centers shows in the fifth decimal.
    """
    half = np.float32(0.5)
    scale = np.float32(1) / (np.float32(size) / np.float32(length))
    centers = (np.arange(size, dtype=np.float32) + half) * scale
    distances = np.abs(np.arange(length, dtype=np.float32) + half - centers[:, None]) * (1 / max(scale, np.float32(1)))
    triangle = np.maximum(1 - distances, 0)
    return triangle / triangle.sum(axis=1, keepdims=True)
