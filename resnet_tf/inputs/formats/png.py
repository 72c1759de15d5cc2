"""PNG: bounds on the size of its uncompressed data.

Reference: PNG, third edition, W3C, sec. 11.
"""

import tensorflow as tf

from resnet_tf.inputs.formats import binary

_CHANNELS = (1, 1, 3, 1, 2, 1, 4)  # of each color type
_FREE_BYTES = 2  # per pixel; more reduce the largest number of pixels
_INTERLACED = 1  # bytes per pixel that take as long as the passes of an interlaced image
# Compressed texts are decompressed to up to 8 MB each. Both chunk types, zTXt and iTXt, end in these letters.
_TEXT, _MAX_TEXTS = b"TXt", 8


def check(encoded: tf.Tensor, pixels: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
    """Return the reason to refuse a PNG of at most `max_pixels` pixels, string scalar; empty if it is acceptable.

    The time to decode is proportional to the uncompressed data.

    Args:
        encoded: image bytes, string scalar.
        pixels: number of pixels in the header, int64 scalar.
        max_pixels: largest number of pixels with two bytes per pixel, int64 scalar; proportionally fewer are acceptable
            with more.
    """
    depth, color, _, _, interlaced = tf.unstack(binary.numbers(encoded, 24, [1] * 5))
    channels = tf.gather(tf.constant(_CHANNELS, tf.int64), tf.minimum(color, len(_CHANNELS) - 1))
    per_pixel = (depth * channels + 7) // 8 + binary.choose(interlaced > 0, _INTERLACED, 0)
    largest = tf.minimum(_FREE_BYTES * max_pixels // tf.maximum(per_pixel, 1), max_pixels)
    too_large = "its header claims more pixels than max_pixels allows for its bits per pixel"
    return binary.first_fault(
        tf.where(pixels > largest, too_large, ""),
        tf.where(binary.count(encoded, _TEXT) > _MAX_TEXTS, f"it has more than {_MAX_TEXTS} compressed texts", ""),
    )
