"""Inspection of encoded images of any format before they are decoded."""

import functools
from collections.abc import Callable

import tensorflow as tf

from resnet_tf.inputs import headers
from resnet_tf.inputs.formats import binary, bmp, gif, jpeg, png, webp
from resnet_tf.inputs.formats.frames import Frame, whole_image

_EMPTY = "the file is empty"
_UNKNOWN = "not a JPEG, PNG, BMP, GIF or WebP image, or one without pixels"


def inspect(encoded: tf.Tensor, max_pixels: tf.Tensor, too_large: str) -> Frame:
    """Check an encoded image and return what to decode: the image, or the first frame of an animation.

    Args:
        encoded: image bytes, string scalar.
        max_pixels: largest number of pixels, int64 scalar. Encodings that take more time or memory per pixel than a
            JPEG with one scan have a lower limit.
        too_large: fault of an image whose header claims more than `max_pixels`.

    Raises:
        tf.errors.InvalidArgumentError: if the header of a JPEG is corrupt.
    """

    def size_fault(size: tf.Tensor) -> tf.Tensor:
        pixels = tf.reduce_prod(size)
        return tf.where(pixels > 0, tf.where(pixels <= max_pixels, "", too_large), _UNKNOWN)

    def inspect_jpeg() -> Frame:
        size = headers.jpeg_size(encoded)
        fault, checked = tf.cond(
            size_fault(size) == "",
            lambda: jpeg.check(encoded, tf.reduce_prod(size), max_pixels),
            lambda: (size_fault(size), encoded),
        )
        return whole_image(checked, size, fault)

    def inspect_png() -> Frame:
        size = headers.non_jpeg_size(encoded)
        fault = binary.first_fault(size_fault(size), png.check(encoded, tf.reduce_prod(size), max_pixels))
        return whole_image(encoded, size, fault)

    def inspect_bmp() -> Frame:
        size, fault = bmp.check(encoded)
        return whole_image(encoded, size, binary.first_fault(size_fault(size), fault))

    inspections: dict[str, Callable[[], Frame]] = {
        "PNG": inspect_png,
        "GIF": functools.partial(gif.first_frame, encoded, max_pixels),
        "BMP": inspect_bmp,
        "WebP": functools.partial(webp.first_frame, encoded, max_pixels),
        "other": lambda: whole_image(encoded, tf.zeros([2], tf.int64), tf.where(encoded == "", _EMPTY, _UNKNOWN)),
    }
    others = [inspections[name] for name in headers.FORMATS]
    return tf.cond(
        tf.io.is_jpeg(encoded), inspect_jpeg, lambda: tf.switch_case(headers.non_jpeg_format(encoded), others)
    )
