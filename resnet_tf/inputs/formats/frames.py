"""First frames of animations: cut out of an encoded image, and placed on the canvas after decoding."""

from typing import NamedTuple

import tensorflow as tf

# Largest number of pixels of a canvas: a frame is decoded and copied. Divisor of `max_pixels`.
_MEMORY = 2


class Frame(NamedTuple):
    """An image, or the first frame of an animation.

    Attributes:
        encoded: the frame alone, an image that TensorFlow decodes, string scalar.
        size: (height, width) of the frame, int64 [2].
        offset: (top, left) of the frame on the canvas, int64 [2].
        canvas: (height, width) of the image, int64 [2].
        background: color of the canvas around the frame, uint8 [3].
        fault: reason to refuse the image, string scalar; empty if it is acceptable.
    """

    encoded: tf.Tensor
    size: tf.Tensor
    offset: tf.Tensor
    canvas: tf.Tensor
    background: tf.Tensor
    fault: tf.Tensor


def whole_image(encoded: tf.Tensor, size: tf.Tensor, fault: tf.Tensor) -> Frame:
    """Return an image of one frame, of (height, width) `size`, int64 [2]."""
    return Frame(encoded, size, tf.zeros([2], tf.int64), size, tf.zeros([3], tf.uint8), fault)


def check_canvas(frame: Frame, max_pixels: tf.Tensor) -> Frame:
    """Return the frame with a fault if its canvas has more than half of `max_pixels`."""
    too_large = "its header claims more than half of max_pixels, the limit for its format"
    is_large = _MEMORY * tf.reduce_prod(frame.canvas) > max_pixels
    return frame._replace(fault=tf.where((frame.fault == "") & is_large, too_large, frame.fault))


def put_on_canvas(pixels: tf.Tensor, frame: Frame) -> tf.Tensor:
    """Put the decoded frame, uint8 [h, w, 3], on its canvas, uint8 [height, width, 3]."""

    def on_canvas() -> tf.Tensor:
        top, left = tf.unstack(frame.offset)
        bottom, right = tf.unstack(frame.canvas - frame.offset - tf.cast(tf.shape(pixels)[:2], tf.int64))

        def fill(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
            return tf.broadcast_to(frame.background, tf.stack([height, width, 3]))

        height, width = frame.size[0], frame.canvas[1]
        rows = tf.concat([fill(height, left), pixels, fill(height, right)], axis=1)
        return tf.concat([fill(top, width), rows, fill(bottom, width)], axis=0)

    return tf.cond(tf.reduce_all(frame.canvas == frame.size), lambda: pixels, on_canvas)
