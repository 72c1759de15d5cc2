"""WebP: the first frame alone, without its container.

Reference: RFC 9649, sec. 2 and 3.
"""

import tensorflow as tf

from resnet_tf.inputs import headers
from resnet_tf.inputs.formats import binary
from resnet_tf.inputs.formats.frames import Frame, check_canvas

_HEADER, _CHUNK_HEADER, _FRAME_HEADER = 12, 8, 16  # bytes
_MAX_CHUNKS = 100
_ALPHA_POSITION, _ALPHA = 24, 0x10  # flag of a lossless image, in a file without other chunks


def first_frame(encoded: tf.Tensor, max_pixels: tf.Tensor) -> Frame:
    """Return the first frame as a WebP of a single chunk, without transparency.

    TensorFlow aborts the process on an animation whose header has no alpha flag: it allocates 3 channels and writes 4.

    Args:
        encoded: image bytes, string scalar.
        max_pixels: twice the largest number of pixels of the canvas, int64 scalar.
    """
    position, frame_position = _find_image(encoded)
    name = binary.between(encoded, position, position + 4)
    size = tf.minimum(binary.numbers(encoded, position + 4, [4])[0], binary.length(encoded))
    chunk = binary.between(encoded, position, position + _CHUNK_HEADER + size)
    riff_size = 4 + _CHUNK_HEADER + size + size % 2
    padding = tf.where(size % 2 == 1, tf.constant(b"\0"), "")
    image = tf.strings.join(["RIFF", binary.to_bytes(riff_size, 4), "WEBP", chunk, padding])
    flags = binary.numbers(image, _ALPHA_POSITION, [1])[0]
    opaque = binary.replace_byte(image, _ALPHA_POSITION, flags - tf.bitwise.bitwise_and(flags, _ALPHA))
    still = tf.where(name == "VP8L", opaque, image)

    stored = headers.non_jpeg_size(still)
    canvas = headers.non_jpeg_size(encoded)
    is_animated = frame_position >= 0
    left, top, width, height = tf.unstack(
        binary.numbers(encoded, tf.maximum(frame_position, 0) + _CHUNK_HEADER, [3, 3, 3, 3])
    )
    offset = binary.choose(is_animated, 2 * tf.stack([top, left]), 0)
    expected = binary.choose(is_animated, tf.stack([height, width]) + 1, canvas)
    is_found = tf.reduce_any(name == ["VP8 ", "VP8L"])
    fits = tf.reduce_all(stored == expected) & tf.reduce_all(offset + stored <= canvas)
    fault = binary.first_fault(
        tf.where(is_found, "", "it has no frame"),
        tf.where(fits, "", "its frame and its header have different sizes"),
    )
    return check_canvas(Frame(still, stored, offset, canvas, tf.zeros([3], tf.uint8), fault), max_pixels)


def _find_image(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the offsets of the first chunk with an image, and of the frame around it, -1 if there is none, int64."""

    def is_other(position: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        name = binary.between(encoded, position, position + 4)
        return tf.reduce_all(name != ["VP8 ", "VP8L"]) & (position < binary.length(encoded))

    def skip(position: tf.Tensor, frame: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        enters = (binary.between(encoded, position, position + 4) == "ANMF") & (frame < 0)
        size = binary.numbers(encoded, position + 4, [4])[0]
        size = binary.choose(enters, _FRAME_HEADER, size + size % 2)
        end = tf.minimum(position + _CHUNK_HEADER + size, binary.length(encoded))
        return end, binary.choose(enters, position, frame)

    return tf.while_loop(
        is_other, skip, tuple(tf.unstack(tf.constant([_HEADER, -1], tf.int64))), maximum_iterations=_MAX_CHUNKS
    )
