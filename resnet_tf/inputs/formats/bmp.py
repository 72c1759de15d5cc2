"""BMP: uncompressed images of 1 to 32 bits per pixel, decoded in graph operations.

TensorFlow decodes palettes to indices, ignores compression and bit masks, and refuses 1, 4 and 16 bits and files with
additional bytes.
"""

import functools
from typing import NamedTuple

import tensorflow as tf

from resnet_tf.inputs.formats import binary

_FILE_HEADER = 14  # bytes
_CORE_HEADER = 12  # size of the header of OS/2, which has smaller numbers and colors of 3 bytes
_MASKS_OUTSIDE = 40  # size of the header that masks follow
_DEPTHS = (1, 4, 8, 16, 24, 32)
_PLAIN, _MASKED = 0, (3, 6)
# Masks of red, green and blue: 32 bits; 16 bits with 5 or 6 bits of green.
_MASKS_32 = (0xFF0000, 0xFF00, 0xFF)
_MASKS_555, _MASKS_565 = (0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)


class _Bitmap(NamedTuple):
    """Header of a BMP, int64 scalars, and the reason to refuse it, a string scalar.

    Attributes:
        height: rows.
        width: columns.
        depth: bits per pixel.
        pixels: offset of the pixels, in bytes.
        row: bytes of a row.
        is_top_down: the first row is stored first.
        is_565: 16 bits have 6 bits of green.
        palette: colors, uint8 [256, 3] in RGB order.
        fault: reason to refuse the image; empty if it is acceptable.
    """

    height: tf.Tensor
    width: tf.Tensor
    depth: tf.Tensor
    pixels: tf.Tensor
    row: tf.Tensor
    is_top_down: tf.Tensor
    is_565: tf.Tensor
    palette: tf.Tensor
    fault: tf.Tensor


def check(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return (height, width) of a BMP, int64 [2], and the reason to refuse it, string scalar, empty if acceptable."""
    bitmap = _parse(encoded)
    return tf.stack([bitmap.height, bitmap.width]), bitmap.fault


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a BMP without a fault to RGB, uint8 [height, width, 3]."""
    bitmap = _parse(encoded)
    part = binary.between(encoded, bitmap.pixels, bitmap.pixels + bitmap.height * bitmap.row)
    rows = tf.reshape(tf.io.decode_raw(part, tf.uint8), tf.stack([bitmap.height, bitmap.row]))
    branches = [*(functools.partial(_from_palette, rows, bitmap, bits) for bits in (1, 4, 8))]
    branches += [functools.partial(_from_16_bits, rows, bitmap)]
    branches += [functools.partial(_from_channels, rows, bitmap, channels) for channels in (3, 4)]
    pixels = tf.switch_case(tf.argmax(bitmap.depth == _DEPTHS, output_type=tf.int32), branches)
    return tf.cond(bitmap.is_top_down, lambda: pixels, lambda: tf.reverse(pixels, [0]))


def _from_palette(rows: tf.Tensor, bitmap: _Bitmap, bits: int) -> tf.Tensor:
    shifts = tf.constant([*range(8 - bits, -1, -bits)], tf.uint8)
    parts = tf.bitwise.bitwise_and(tf.bitwise.right_shift(rows[..., tf.newaxis], shifts), 2**bits - 1)
    indices = tf.reshape(parts, tf.stack([bitmap.height, bitmap.row * (8 // bits)]))[:, : bitmap.width]
    return tf.gather(bitmap.palette, tf.cast(indices, tf.int32))


def _from_16_bits(rows: tf.Tensor, bitmap: _Bitmap) -> tf.Tensor:
    values = tf.bitcast(tf.reshape(rows, tf.stack([bitmap.height, bitmap.row // 2, 2])), tf.uint16)
    values = tf.cast(values[:, : bitmap.width], tf.int32)
    green = tf.where(bitmap.is_565, 64, 32)
    channels = [
        values // (32 * green) % 32 * 255 // 31,
        values // 32 % green * 255 // (green - 1),
        values % 32 * 255 // 31,
    ]
    return tf.cast(tf.stack(channels, -1), tf.uint8)


def _from_channels(rows: tf.Tensor, bitmap: _Bitmap, channels: int) -> tf.Tensor:
    pixels = tf.reshape(rows[:, : channels * bitmap.width], tf.stack([bitmap.height, bitmap.width, channels]))
    return pixels[..., 2::-1]


def _parse(encoded: tf.Tensor) -> _Bitmap:
    pixels, header = tf.unstack(binary.numbers(encoded, 10, [4, 4]))
    is_core = header == _CORE_HEADER
    core_width, core_height, _, core_depth = tf.unstack(binary.numbers(encoded, 18, [2, 2, 2, 2]))
    width, height, _, depth, compression = tf.unstack(binary.numbers(encoded, 18, [4, 4, 2, 2, 4]))
    colors = binary.numbers(encoded, 46, [4])[0]
    masks = binary.numbers(encoded, 54, [4, 4, 4])
    width, height = binary.choose(is_core, core_width, width), binary.choose(is_core, core_height, height)
    depth, compression = binary.choose(is_core, core_depth, depth), binary.choose(is_core, _PLAIN, compression)
    colors = binary.choose(is_core | (colors == 0), 2 ** tf.minimum(depth, 8), tf.minimum(colors, 256))

    is_top_down = height >= 2**31  # a negative number
    height = binary.choose(is_top_down, 2**32 - height, height)
    is_masked = tf.reduce_any(compression == _MASKED)
    is_565 = is_masked & tf.reduce_all(masks == _MASKS_565)
    is_standard = ((depth == 24) | (depth == 32)) & tf.reduce_all(masks == _MASKS_32)
    is_standard |= (depth == 16) & (is_565 | tf.reduce_all(masks == _MASKS_555))

    after_header = _FILE_HEADER + header + binary.choose(is_masked & (header == _MASKS_OUTSIDE), 12, 0)
    entry = binary.choose(is_core, 3, 4)
    pixels = binary.choose(pixels == 0, after_header + binary.choose(depth <= 8, entry * colors, 0), pixels)
    height, width = tf.minimum(height, 2**31), tf.minimum(width, 2**31)  # so that their product is below 2**63
    row = (width * depth + 31) // 32 * 4
    fault = binary.first_fault(
        tf.where(tf.reduce_any(depth == _DEPTHS) & (header >= _CORE_HEADER), "", "it is no valid BMP"),
        tf.where(
            (compression == _PLAIN) | (is_masked & is_standard),
            "",
            "it is a BMP with compression or with other bit masks",
        ),
        tf.where(pixels + height * row > binary.length(encoded), "corrupt or cut short", ""),
    )
    palette = _palette(encoded, after_header, entry, colors)
    return _Bitmap(height, width, depth, pixels, row, is_top_down, is_565, palette, fault)


def _palette(encoded: tf.Tensor, start: tf.Tensor, entry: tf.Tensor, colors: tf.Tensor) -> tf.Tensor:
    """Return the palette, uint8 [256, 3]; absent colors are black."""
    part = binary.between(encoded, start, start + entry * colors)
    values = tf.io.decode_raw(part, tf.uint8, fixed_length=4 * 256)
    table = tf.cond(entry == 3, lambda: tf.reshape(values[: 3 * 256], [256, 3]), lambda: tf.reshape(values, [256, 4]))
    return table[:, 2::-1]
