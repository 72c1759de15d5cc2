"""What the first bytes of an encoded picture say, read in graph operations without decoding anything."""

import tensorflow as tf

_HEAD = 32  # bytes, enough for every header but JPEG's
_EXIF_WITHIN = 2**17  # cameras write EXIF first; a segment holds at most 64 kB
_MAX_SEGMENTS = 16
_ORIENTATION = 0x0112


def picture_size(encoded: tf.Tensor) -> tf.Tensor:
    """(height, width), int64 [2], that the header of a JPEG, PNG, GIF, BMP or WebP claims; (0, 0) for anything else.

    Raises:
        tf.errors.InvalidArgumentError: for a JPEG whose header is damaged.
    """
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64),
        lambda: _size_of_others(encoded),
    )


def exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """1 to 8, an int32 scalar: how a JPEG's pixels lie, 1 being upright; 1 where nothing is said.

    Reference: Exif 2.32, tag 0x0112.
    """
    return tf.cond(tf.io.is_jpeg(encoded), lambda: _jpeg_orientation(encoded), lambda: 1)


def _size_of_others(encoded: tf.Tensor) -> tf.Tensor:
    head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=_HEAD), tf.int64)

    def starts(text: bytes, at: int = 0) -> tf.Tensor:
        return tf.reduce_all(head[at : at + len(text)] == tf.constant(list(text), tf.int64))

    def number(first: int, count: int) -> tf.Tensor:
        """`count` bytes as an unsigned number, the least significant first."""
        return tf.reduce_sum(head[first : first + count] * [256**power for power in range(count)])

    def big(first: int) -> tf.Tensor:
        return tf.reduce_sum(head[first : first + 4] * [256**power for power in (3, 2, 1, 0)])

    rows = number(22, 4)  # of a BMP: negative where they go from top to bottom
    bits = number(21, 4)  # of a lossless WebP: 14 for width - 1, then 14 for height - 1
    webp = starts(b"RIFF") & starts(b"WEBP", 8)
    sizes = [
        (starts(b"\x89PNG"), [big(20), big(16)]),
        (starts(b"GIF8"), [number(8, 2), number(6, 2)]),
        (starts(b"BM"), [tf.minimum(rows, 2**32 - rows), number(18, 4)]),
        # RFC 9649
        (webp & starts(b"VP8 ", 12), [number(28, 2) % 2**14, number(26, 2) % 2**14]),
        (webp & starts(b"VP8L", 12), [bits // 2**14 % 2**14 + 1, bits % 2**14 + 1]),
        (webp & starts(b"VP8X", 12), [number(27, 3) + 1, number(24, 3) + 1]),
    ]
    found = tf.constant([0, 0], tf.int64)
    for matches, size in sizes:
        found = tf.where(matches, tf.stack(size), found)
    return found


def _jpeg_orientation(encoded: tf.Tensor) -> tf.Tensor:
    raw = tf.io.decode_raw(tf.strings.substr(encoded, 0, _EXIF_WITHIN), tf.uint8)
    data = tf.concat([tf.cast(raw, tf.int32), tf.zeros([_HEAD], tf.int32)], 0)
    size = tf.size(raw)

    def number(position: tf.Tensor, count: int, little: tf.Tensor | bool = False) -> tf.Tensor:
        """The unsigned number of 2 or 4 bytes at a place; 0 beyond the end."""
        inside = (position >= 0) & (position <= size)
        digits = data[tf.where(inside, position, size) : tf.where(inside, position, size) + count]
        digits = tf.where(little, tf.reverse(digits, [0]), digits)
        return tf.reduce_sum(digits * tf.constant([1 << (8 * (count - 1 - place)) for place in range(count)]))

    def is_exif(position: tf.Tensor) -> tf.Tensor:
        return (number(position, 2) == 0xFFE1) & (number(position + 4, 4) == 0x45786966)  # APP1, "Exif"

    def follows(position: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        marker = number(position, 2)
        application = ((marker >= 0xFFE0) & (marker <= 0xFFEF)) | (marker == 0xFFFE)  # or a comment
        return application & ~is_exif(position) & (count < _MAX_SEGMENTS)

    position, _ = tf.while_loop(
        follows, lambda position, count: (position + 2 + number(position + 2, 2), count + 1), (2, 0)
    )

    def in_segment() -> tf.Tensor:
        tiff = position + 10
        little = number(tiff, 2) == 0x4949
        directory = tiff + number(tiff + 4, 4, little)
        first = tf.clip_by_value(directory + 2, 0, size)
        count = tf.minimum(number(directory, 2, little), (size - first) // 12)
        fields = tf.reshape(data[first : first + 12 * count], [count, 12])
        pairs = tf.where(little, tf.reverse(tf.reshape(fields, [count, 6, 2]), [2]), tf.reshape(fields, [count, 6, 2]))
        values = 256 * pairs[..., 0] + pairs[..., 1]
        orientation = tf.reduce_max(tf.where(values[:, 0] == _ORIENTATION, values[:, 4], 1))
        return tf.where((orientation >= 1) & (orientation <= 8), orientation, 1)

    return tf.cond(is_exif(position), in_segment, lambda: 1)
