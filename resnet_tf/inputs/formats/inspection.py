"""Inspection of encoded images of any format before they are decoded."""

import functools
from collections.abc import Callable

import tensorflow as tf

from resnet_tf.inputs import headers
from resnet_tf.inputs.deferred import deferred
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

    def inspect_png() -> Frame:
        size = headers.non_jpeg_size(encoded)
        fault = binary.first_fault(
            _size_fault(size, max_pixels, too_large), png.check(encoded, tf.reduce_prod(size), max_pixels)
        )
        return whole_image(encoded, size, fault)

    def inspect_bmp() -> Frame:
        size, fault = bmp.check(encoded)
        return whole_image(encoded, size, binary.first_fault(_size_fault(size, max_pixels, too_large), fault))

    inspections: dict[str, Callable[[], Frame]] = {
        "PNG": inspect_png,
        "GIF": functools.partial(gif.first_frame, encoded, max_pixels),
        "BMP": inspect_bmp,
        "WebP": functools.partial(webp.first_frame, encoded, max_pixels),
        "other": lambda: whole_image(encoded, tf.zeros([2], tf.int64), tf.where(encoded == "", _EMPTY, _UNKNOWN)),
    }
    others = [deferred(inspections[name]) for name in headers.FORMATS]
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: inspect_jpeg(encoded, max_pixels, too_large),
        lambda: tf.switch_case(headers.non_jpeg_format(encoded), others),
    )


def inspect_jpeg(encoded: tf.Tensor, max_pixels: tf.Tensor, too_large: str) -> Frame:
    """Check an encoded image that is known to be a JPEG; see `inspect`."""
    size = headers.jpeg_size(encoded)
    fault = _size_fault(size, max_pixels, too_large)
    fault, checked = tf.cond(
        fault == "", lambda: jpeg.check(encoded, tf.reduce_prod(size), max_pixels), lambda: (fault, encoded)
    )
    return whole_image(checked, size, fault)


def _size_fault(size: tf.Tensor, max_pixels: tf.Tensor, too_large: str) -> tf.Tensor:
    """Return the reason to refuse an image of a size in pixels, int64 [2], string scalar; empty if there is none."""
    pixels = tf.reduce_prod(size)
    return tf.where(pixels > 0, tf.where(pixels <= max_pixels, "", too_large), _UNKNOWN)
