"""GIF: the first frame alone, on the canvas that PIL gives it.

Reference: CompuServe, Graphics Interchange Format, version 89a, sec. 18 to 26.
"""

import tensorflow as tf

from resnet_tf.inputs.formats import binary
from resnet_tf.inputs.formats.frames import Frame, check_canvas

_HEADER = 13  # bytes before the global color table
_FRAME, _EXTENSION, _GRAPHIC_CONTROL = 0x2C, 0x21, 0xF9
_MAX_EXTENSIONS, _MAX_RUNS = 100, 10_000
_RUN = 4096  # blocks looked at together


def first_frame(encoded: tf.Tensor, max_pixels: tf.Tensor) -> Frame:
    """Return the first frame, without transparency, which TensorFlow would decode to black.

    TensorFlow decodes all frames, of any size, and takes the largest one as the canvas.

    Args:
        encoded: image bytes, string scalar.
        max_pixels: twice the largest number of pixels of the canvas, int64 scalar.
    """
    screen, flags = binary.numbers(encoded, 6, [2, 2]), binary.numbers(encoded, 10, [1])[0]
    global_end = _HEADER + _table_size(flags)
    data = tf.concat([tf.io.decode_raw(encoded, tf.uint8), tf.zeros([2], tf.uint8)], 0)  # ends with an empty block
    start, transparent, skipped = _skip_extensions(encoded, data, global_end)
    left, top, width, height, frame_flags = tf.unstack(binary.numbers(encoded, start + 1, [2, 2, 2, 2, 1]))
    table_end = start + 10 + _table_size(frame_flags)
    end, runs = _skip_blocks(data, table_end + 1)  # after the byte with the size of codes
    is_local = frame_flags >= 128
    table = binary.between(
        encoded, binary.choose(is_local, start + 10, _HEADER), binary.choose(is_local, table_end, global_end)
    )
    offset, size = tf.stack([top, left]), tf.stack([height, width])
    parts = [
        binary.between(encoded, 0, 6),
        binary.between(encoded, start + 5, start + 9),  # the screen has the size of the frame
        binary.between(encoded, 10, global_end),
        tf.constant(b"\x2c\0\0\0\0"),
        binary.between(encoded, start + 5, end),
        tf.constant(b";"),
    ]
    is_frame = binary.numbers(encoded, start, [1])[0] == _FRAME
    too_many = (skipped >= _MAX_EXTENSIONS) | (runs >= _MAX_RUNS)
    fault = binary.first_fault(
        tf.where(too_many, "it has too many blocks before or in its first frame", ""),
        tf.where(is_frame & tf.reduce_all(size > 0), "", "it has no frame"),
        tf.where(end > binary.length(encoded), "corrupt or cut short", ""),
    )
    background = binary.numbers(table, 3 * tf.maximum(transparent, 0), [1, 1, 1])
    canvas = tf.maximum(screen[::-1], offset + size)
    frame = Frame(tf.strings.join(parts), size, offset, canvas, tf.cast(background, tf.uint8), fault)
    return check_canvas(frame, max_pixels)


def _table_size(flags: tf.Tensor) -> tf.Tensor:
    """Return the size in bytes, int64, of the color table that flags announce."""
    return binary.choose(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)


def _skip_extensions(encoded: tf.Tensor, data: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the offset after extensions, the index of the transparent color or -1, and their number, int64."""

    def is_extension(position: tf.Tensor, _: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        return (binary.numbers(encoded, position, [1])[0] == _EXTENSION) & (count < _MAX_EXTENSIONS)

    def skip(position: tf.Tensor, transparent: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, ...]:
        label, _, flags, _, index = tf.unstack(binary.numbers(encoded, position + 1, [1, 1, 1, 2, 1]))
        is_transparent = (label == _GRAPHIC_CONTROL) & (flags % 2 == 1)
        end, runs = _skip_blocks(data, position + 2)
        return (
            binary.choose(runs < _MAX_RUNS, end, tf.size(data)),
            binary.choose(is_transparent, index, transparent),
            count + 1,
        )

    return tf.while_loop(is_extension, skip, (start, *tf.unstack(tf.constant([-1, 0], tf.int64))))


def _skip_blocks(data: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the offset after a sequence of blocks and its empty last block, and the number of steps, int64.

    A step skips all consecutive blocks of the same size, so that data in blocks of 255 bytes takes few steps.

    Args:
        data: bytes, uint8 [N + 2], the last two zero.
        start: offset of the first block, int64.
    """
    last = tf.size(data, tf.int64) - 1

    def is_block(position: tf.Tensor, runs: tf.Tensor) -> tf.Tensor:
        return (data[position] > 0) & (runs < _MAX_RUNS)

    def skip(position: tf.Tensor, runs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        step = tf.cast(data[position], tf.int64) + 1
        sizes = data[position : tf.minimum(position + _RUN * step, last) : step]
        others = tf.concat([tf.cast(sizes, tf.int64) + 1 != step, [True]], 0)
        return tf.minimum(position + step * tf.argmax(others), last), runs + 1

    end, runs = tf.while_loop(is_block, skip, (tf.minimum(start, last), tf.constant(0, tf.int64)))
    return end + 1, runs
