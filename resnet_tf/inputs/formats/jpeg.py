"""JPEG: bounds on the cost of images with several scans, such as progressive ones.

Reference: ITU-T T.81, annex B.
"""

import tensorflow as tf

from resnet_tf.inputs.deferred import deferred
from resnet_tf.inputs.formats import binary

_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_SHORTEST_SCAN = 10  # bytes of its header
_MAX_SEGMENTS = 1024
# A decoder visits all coefficients in each scan. Product of pixels and scans, as a multiple of `max_pixels`.
_MAX_SCANS = 8
# A decoder keeps the coefficients of an image with several scans: 6 to 8 bytes per pixel, and 3 for the result.
_MEMORY = 2  # times that of an image with one scan
# Second bytes of markers without a segment: stuffed zeros, restarts, the start of an image, and fill bytes.
_ALONE = (0x00, 0x01, *range(0xD0, 0xD9), 0xFF)
_NO_FRAME = (0xC4, 0xC8, 0xCC)  # tables and extensions, between the markers of frames
_SEQUENTIAL = (0xC0, 0xC1)


def check(encoded: tf.Tensor, pixels: tf.Tensor, max_pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Check the scans of a JPEG of at most `max_pixels` pixels.

    Args:
        encoded: image bytes, string scalar.
        pixels: number of pixels in the header, int64 scalar.
        max_pixels: largest number of pixels of an image with one scan, int64 scalar; half as many are acceptable with
            several.

    Returns:
        The reason to refuse the image, string scalar, empty if it is acceptable; and the bytes to decode.
    """
    limit = _MAX_SCANS * max_pixels
    size = binary.length(encoded)
    # Both bound the number of scans from above: the second by all pairs of bytes that look like the start of a scan.
    few = pixels * (size // _SHORTEST_SCAN) <= limit
    few = tf.cond(few, lambda: True, lambda: pixels * binary.count(encoded, _SCAN) <= limit)
    return tf.cond(
        few & (_MEMORY * pixels <= max_pixels),
        lambda: ("", encoded),
        deferred(lambda: _check_scans(encoded, pixels, max_pixels)),
    )


def _check_scans(encoded: tf.Tensor, pixels: tf.Tensor, max_pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return fault and bytes as `check`; the bytes end with the image, so that the decoder finds no further scan.

    An image that is cut short keeps no end marker, without which the decoder refuses it.
    """
    start, frame, components = _find_scan(encoded)
    rest = binary.between(encoded, start, tf.int32.max)
    parts = tf.raw_ops.StringSplitV2(input=rest[tf.newaxis], sep=tf.constant(_END), maxsplit=1).values
    scans, end = parts[0], tf.where(tf.size(parts) > 1, _END, b"")
    in_scan = binary.numbers(encoded, start + 4, [1])[0]
    is_single = _is_in(frame, _SEQUENTIAL) & (components == in_scan)  # the decoder refuses a second scan
    count = tf.where(is_single, tf.constant(1, tf.int64), binary.count(scans, _SCAN))
    too_many = tf.strings.join(["it has ", tf.strings.as_string(count), " scans, too many for its number of pixels"])
    too_large = "its header claims more than half of max_pixels, the limit for several scans"
    no_scan = f"it has no scan after at most {_MAX_SEGMENTS:,} segments"  # where nothing bounds the scans
    fault = binary.first_fault(
        tf.where(_is_scan(encoded, start), "", no_scan),
        tf.where((count > 1) & (_MEMORY * pixels > max_pixels), too_large, ""),
        tf.where(pixels * count > _MAX_SCANS * max_pixels, too_many, ""),
    )
    return fault, tf.strings.join([binary.between(encoded, 0, start), scans, end])


def _find_scan(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the offset of the first scan, and marker and number of components of the frame, int64.

    The offset is that of another marker, or of the end, if no scan follows `_MAX_SEGMENTS` segments.
    """

    def is_before(position: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return ~_is_scan(encoded, position) & (position < binary.length(encoded))

    def skip(position: tf.Tensor, frame: tf.Tensor, components: tf.Tensor) -> tuple[tf.Tensor, ...]:
        prefix, marker = tf.unstack(binary.numbers(encoded, position, [1, 1]))
        (size,) = tf.unstack(binary.numbers(encoded, position + 2, [2], big_endian=True))
        is_frame = (prefix == 0xFF) & (marker >= 0xC0) & (marker <= 0xCF) & ~_is_in(marker, _NO_FRAME)
        is_garbage = (prefix != 0xFF) | (marker == 0xFF)
        step = binary.choose(is_garbage, 1, binary.choose(_is_in(marker, _ALONE), 2, size + 2))
        return (
            position + step,
            tf.where(is_frame, marker, frame),
            binary.choose(is_frame, binary.numbers(encoded, position + 9, [1])[0], components),
        )

    zero = tf.constant(0, tf.int64)
    return tf.while_loop(is_before, skip, (zero + 2, zero, zero), maximum_iterations=_MAX_SEGMENTS)


def _is_scan(encoded: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(binary.numbers(encoded, position, [1, 1]) == list(_SCAN))


def _is_in(value: tf.Tensor, values: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(values, tf.int64))
