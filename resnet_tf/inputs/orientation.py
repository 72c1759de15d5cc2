"""EXIF orientations: rotation of images to upright, and positions in images as they are stored."""

import functools

import tensorflow as tf

from resnet_tf.core.native_log import silence_unsupported_types

# EXIF orientations that need each of the operations, in this order: transpose, flip vertically, flip horizontally.
_TRANSPOSED, _FLIPPED_VERTICALLY, _FLIPPED_HORIZONTALLY = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)


def _is_in(orientation: tf.Tensor, group: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(orientation == tf.constant(group))


def rotate(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotate and mirror an image, [h, w, C], from its EXIF orientation to upright."""
    silence_unsupported_types()
    for group, transform in (
        (_TRANSPOSED, lambda pixels: tf.transpose(pixels, [1, 0, 2])),
        (_FLIPPED_VERTICALLY, lambda pixels: tf.reverse(pixels, [0])),
        (_FLIPPED_HORIZONTALLY, lambda pixels: tf.reverse(pixels, [1])),
    ):
        image = tf.cond(
            _is_in(orientation, group), functools.partial(transform, image), functools.partial(tf.identity, image)
        )
    return image


def upright_shape(stored: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Return (height, width) of the upright image, [2], from those of the image as stored, or the reverse."""
    return tf.where(_is_in(orientation, _TRANSPOSED), tf.reverse(stored, [0]), stored)


def stored_window(
    shape: tf.Tensor, offset: tf.Tensor, size: tf.Tensor, orientation: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return offset and size of a window in the image as stored, each [2].

    Args:
        shape: (height, width) of the upright image, [2].
        offset: (top, left) of the window in the upright image, [2].
        size: (height, width) of the window in the upright image, [2].
        orientation: EXIF orientation, int32 scalar.
    """
    flipped = tf.stack([_is_in(orientation, _FLIPPED_VERTICALLY), _is_in(orientation, _FLIPPED_HORIZONTALLY)])
    offset = tf.where(flipped, shape - offset - size, offset)
    return upright_shape(offset, orientation), upright_shape(size, orientation)
